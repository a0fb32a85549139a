"""The command line: `flows fit`, `schema`, `sample`, `score`, `plot`, `show` and `compare`, over `flows.tables`.

Each command is a file; `app.py` puts them together, `failures.py` turns errors into one line and an exit status. `source.py`
reads files in blocks of rows, `columns.py` makes columns of their text, `output.py` writes files whole or not at all.
"""

try:
    import polars  # noqa: F401
    import rich  # noqa: F401
    import typer  # noqa: F401
except ImportError as error:
    raise ImportError(f"the command flows needs the package {error.name}: pip install 'jax-flows[cli]'") from error
