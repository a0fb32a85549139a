"""`flows plot`: a picture of draws beside rows."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from flows.cli.options import (
    Debug,
    DropGaps,
    Encoding,
    Force,
    Format,
    Gaps,
    Json,
    Model,
    NoCache,
    Quiet,
    ReadingOptions,
    Seed,
    Separator,
)

EXAMPLE = "flows plot power.flows power.csv -o pairs.png --columns voltage_v --columns active_power_kw"
DATES = {".png": None, ".svg": "Date", ".pdf": "CreationDate"}  # by ending, what would tell two equal pictures apart


def run(
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
    drop_gaps: DropGaps = False,
    seed: Seed = 0,
    force: Force = False,
    format: Format = None,
    separator: Separator = None,
    encoding: Encoding = None,
    gaps: Gaps = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    no_cache: NoCache = False,
) -> None:
    """Draw margins and pairs of columns, of draws beside rows; of one number given one column its median and 90%."""
    from flows.cli.failures import Mistake
    from flows.cli.models import asked, keep_programs, kept_reading, loaded, print_json, reading_of, whole
    from flows.cli.output import check_output
    from flows.cli.source import Source

    if (ending := Path(output).suffix.lower()) not in DATES:
        raise Mistake(f"{output}: the ending tells no format of pictures; expected .png, .svg or .pdf")
    if n < 1:
        raise Mistake(f"-n is {n}; expected 1 or more")
    _check_matplotlib()
    check_output(output, force)
    table = loaded(model)
    if data is None and table.schema.condition:
        names = ", ".join(table.schema.condition)
        raise Mistake(f"{model} depends on {names}, and has no rows to take it from; give a file: flows plot {model} DATA")
    chosen = _chosen(columns, table.schema)
    keep_programs(no_cache)
    if data is None:
        figure = table.plot(columns=chosen, n=n, rng=seed)
    else:
        source = Source(data, reading_of(ReadingOptions(format, separator, encoding, gaps), data, kept_reading(table)))
        block, frame = whole(source, table.schema, drop_gaps, quiet)
        remedy = "Correct it, or leave the row out; --drop-gaps leaves out those with gaps"
        figure = asked(lambda rows: table.plot(rows, chosen, n, rng=seed), frame, source.name, block, remedy)
    _write(figure, output, ending)
    if json:
        print_json({"file": output, "draws": n, "rows": None if data is None else len(frame), "seed": seed})
    elif not quiet:
        beside = "" if data is None else f", beside {min(n, len(frame)):,} of {len(frame):,} rows of {source.name}"
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
    from flows.tables.frames import listed

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
