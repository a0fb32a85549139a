"""The command line over `flows.tables`: `flows fit`, schema, sample, impute, score, check, plot, show and compare.

`app.py` puts the commands together, `command.py` has the options that several share, and turns errors into one line and an exit
status. `source.py` reads files in blocks of rows, `models.py` gives them the dtypes of a schema and asks fitted tables about
them, `output.py` writes files whole or not at all.
"""

from flows.core import lacking

try:
    import polars  # noqa: F401
    import rich  # noqa: F401
    import typer  # noqa: F401
except ImportError as error:
    raise ImportError(lacking("the command flows", error.name, "cli")) from error
