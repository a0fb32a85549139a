"""`flows plot`: a picture of draws beside rows."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from flows.cli.options import FILES, Model, Shared, command

EXAMPLE = "flows plot power.flows power.csv -o pairs.png --columns voltage_v --columns active_power_kw"
DATES = {".png": None, ".svg": "Date", ".pdf": "CreationDate"}  # by ending, what would tell two equal pictures apart


@command("drop_gaps", "seed", "force", *FILES, "no_cache")
def run(
    shared: Shared,
    model: Model,
    output: Annotated[str, typer.Option("-o", "--output", help="The file of the picture: .png, .svg or .pdf.")],
    data: Annotated[
        Optional[str], typer.Argument(metavar="DATA", help="Rows beside the draws; CSV, Parquet or npy, - is stdin.")
    ] = None,
    columns: Annotated[
        Optional[list[str]],
        typer.Option(
            "--columns",
            metavar="COL",
            help="A column to draw; give it again for more. By default all, of more than 6 the first.",
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Draws, and rows at most.")] = 2_000,
) -> None:
    """Draw margins and pairs of columns, of draws beside rows; of one number given one column its median and 90%."""
    from flows.cli.failures import Mistake
    from flows.cli.models import keep_programs, loaded, print_json, with_rows
    from flows.cli.output import check_output

    if (ending := Path(output).suffix.lower()) not in DATES:
        raise Mistake(f"{output}: the ending tells no format of pictures; expected .png, .svg or .pdf")
    if n < 1:
        raise Mistake(f"-n is {n}; expected 1 or more")
    _check_matplotlib()
    check_output(output, shared.force, model, data)
    table = loaded(model)
    if data is None and table.schema.condition:
        names = ", ".join(table.schema.condition)
        raise Mistake(f"{model} depends on {names}, and has no rows to take it from; give a file: flows plot {model} DATA")
    chosen = _chosen(columns, table.schema)
    keep_programs(shared.no_cache)
    if data is None:
        figure = table.plot(columns=chosen, n=n, rng=shared.seed)
    else:
        figure, frame, name = with_rows(lambda rows: table.plot(rows, chosen, n, rng=shared.seed), data, table, shared)
    _write(figure, output, ending)
    if shared.json:
        print_json({"file": output, "draws": n, "rows": None if data is None else len(frame), "seed": shared.seed})
    elif not shared.quiet:
        beside = "" if data is None else f", beside {min(n, len(frame)):,} of {len(frame):,} rows of {name}"
        print(f"wrote {output}: {n:,} draws{beside}")


def _check_matplotlib() -> None:
    """Say how it is installed; pictures are drawn without a screen."""
    from flows.cli.failures import Mistake

    try:
        import matplotlib
    except ImportError:
        raise Mistake("flows plot needs the package matplotlib: pip install 'jax-flows[plot]'") from None
    matplotlib.use("Agg")


def _chosen(columns: list[str] | None, schema: Any) -> list[str] | None:
    """Names of columns, each of which is modelled."""
    from flows.cli.failures import Mistake
    from flows.results.frames import listed

    for name in columns or []:
        if name not in schema.columns:
            has = listed([each for each in schema if each in schema.columns])
            raise Mistake(f"--columns names {name!r}; expected some of {has}, the columns that are modelled")
    return columns or None


def _write(figure: Any, path: str, ending: str) -> None:
    """The picture, whole or not at all; equal commands write equal bytes."""
    from matplotlib import rc_context

    from flows.persistence.container import beside
    from flows.results.pictures.style import STYLE

    date = DATES[ending]
    with rc_context(fname=STYLE), beside(path) as file:
        figure.savefig(file, format=ending[1:], **({"metadata": {date: None}} if date else {}))
