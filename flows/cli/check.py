"""`flows check` and `flows plot`: draws of a model next to rows of a file, as verdicts and as a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import polars as pl
import typer

import flows
from flows.checks.check import QUESTIONS
from flows.checks.sample import LEAST
from flows.checks.words import WORDS
from flows.cli.command import FILES, Data, Mistake, Model, Shared, command
from flows.cli.models import asked, keep_programs, loaded, typed
from flows.cli.output import check_output, print_json
from flows.cli.source import Source, reading_of
from flows.core import lacking
from flows.persistence.container import replacement
from flows.results.frames import listed
from flows.results.pictures.axes import STYLE

CHECKS = ", ".join(f"{name} ({WORDS[name].subject})" for name in QUESTIONS)
FAILED = 3  # the exit status where something FAILs
DATES = {".png": None, ".svg": "Date", ".pdf": "CreationDate"}  # by ending, the entry of metadata that has the time


@command("drop_gaps", "seed", "force", *FILES, "no_cache")
def check(
    shared: Shared,
    model: Model,
    data: Data,
    train: Annotated[
        Optional[str],
        typer.Option("--train", metavar="FILE", help="Rows that the model was fitted to: are draws copies of them?"),
    ] = None,
    only: Annotated[
        Optional[list[str]],
        typer.Option("--only", metavar="NAME", help=f"A check to run; give it again for more. By default all: {CHECKS}."),
    ] = None,
    level: Annotated[float, typer.Option("--level", help="Share of right models that get a FAIL.")] = 0.01,
    n: Annotated[int, typer.Option("-n", help="Draws; with a condition 99 for each of 2,000 rows.")] = 10_000,
    html: Annotated[
        Optional[str],
        typer.Option(
            "--html", metavar="FILE", help="A page to write: pictures, words, the 20 oddest rows. DATA is read whole."
        ),
    ] = None,
    no_rows: Annotated[bool, typer.Option("--no-rows", help="Leave all rows out of this page.")] = False,
) -> int:
    """Is the density right? A verdict for each question, by rows that the model was not fitted to; exit status 3 for a FAIL."""
    for name in only or []:
        if name not in QUESTIONS:
            raise Mistake(f"--only is {name!r}; expected one of {', '.join(QUESTIONS)}")
    if not 0 < level < 1:
        raise Mistake(f"--level is {level:g}; expected a share between 0 and 1, such as 0.01")
    if n < LEAST:
        raise Mistake(f"-n is {n}; expected {LEAST} or more")
    if no_rows and html is None:
        raise Mistake("--no-rows is of the page that --html writes; give --html FILE, too")
    if html is not None:
        check_output(html, shared.force, model, data, train)
    if data == train == "-":
        raise Mistake("DATA and --train are both stdin; give a file for one of them")
    table = loaded(model)
    keep_programs(shared.no_cache)

    train_rows = None if train is None else with_rows(table.schema.rows, train, table, shared)[1]
    _, rows, _ = with_rows(table.schema.rows, data, table, shared)
    checks = flows.check(table, rows, train=train_rows, rng=shared.seed, samples=n, level=level, only=only or None)
    if shared.json:
        print_json(checks.figures)
    else:
        print(checks, flush=True)
    if html is not None:
        checks.write_html(html, title=f"{Path(model).name}, checked by {Path(data).name}", rows=not no_rows)
    return 0 if checks.passed else FAILED


@command("drop_gaps", "seed", "force", *FILES, "no_cache")
def plot(
    shared: Shared,
    model: Model,
    output: Annotated[str, typer.Option("-o", "--output", help="The file of the picture: .png, .svg or .pdf.")],
    data: Annotated[
        Optional[str], typer.Argument(metavar="DATA", help="Rows to draw next to the draws; CSV, Parquet or npy, - is stdin.")
    ] = None,
    columns: Annotated[
        Optional[list[str]],
        typer.Option(
            "--columns",
            metavar="COL",
            help="A column to draw; give it again for more. By default all, at most 6.",
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Number of draws, and at most as many rows.")] = 2_000,
) -> None:
    """Draw margins and pairs of columns, of draws next to rows; for one number given one column, its median and central 90%."""
    if (ending := Path(output).suffix.lower()) not in DATES:
        raise Mistake(f"{output}: the ending does not name a format of pictures; expected .png, .svg or .pdf")
    if n < 1:
        raise Mistake(f"-n is {n}; expected 1 or more")
    try:
        import matplotlib
    except ImportError:
        raise Mistake(lacking("flows plot", "matplotlib", "plot")) from None
    matplotlib.use("Agg")  # without a screen
    check_output(output, shared.force, model, data)
    table = loaded(model)
    schema = table.schema
    if data is None and schema.condition:
        names = ", ".join(schema.condition)
        raise Mistake(f"{model} depends on {names}, and has no rows to take it from; give a file: flows plot {model} DATA")
    for column in columns or []:
        if column not in schema.columns:
            modelled = listed([name for name in schema if name in schema.columns])
            raise Mistake(f"--columns names {column!r}; expected some of {modelled}, the columns that are modelled")
    keep_programs(shared.no_cache)
    if data is None:
        figure = table.plot(columns=columns or None, n=n, rng=shared.seed)
    else:
        figure, frame, name = with_rows(lambda rows: table.plot(rows, columns or None, n, rng=shared.seed), data, table, shared)
    with matplotlib.rc_context(fname=STYLE), replacement(output) as file:
        metadata = {"metadata": {DATES[ending]: None}} if DATES[ending] else {}  # equal commands write equal bytes
        figure.savefig(file, format=ending[1:], **metadata)
    if shared.json:
        print_json({"file": output, "draws": n, "rows": None if data is None else len(frame), "seed": shared.seed})
    elif not shared.quiet:
        rows = "" if data is None else f", next to {min(n, len(frame)):,} of {len(frame):,} rows of {name}"
        print(f"wrote {output}: {n:,} draws{rows}")


def with_rows(
    call: Callable[[pl.DataFrame], Any], path: str, table: "flows.tables.TableResult", shared: Shared
) -> tuple[Any, pl.DataFrame, str]:
    """Return the answer of a table for all rows of a file, or for rows without gaps; these rows; and the file, for messages."""
    source = Source(path, reading_of(shared, path, table))
    block = typed(source.whole(), table.schema)
    gaps = table.schema.gaps(block.frame) if shared.drop_gaps or table.any_given_any else {}
    if gaps:
        complete = np.flatnonzero(~np.any(list(gaps.values()), 0))
        if not len(complete):
            raise Mistake(f"all rows of {source.name} have a gap; ignore these columns when fitting, or fill them")
        if not shared.quiet:
            count = len(block.frame)
            typer.echo(f"warning: {count - len(complete)} of {count} rows are left out, as they have gaps", err=True)
        block = block.taken(complete)
    remedy = "Correct it, or leave the row out; --drop-gaps leaves out rows with gaps"
    return asked(call, block, remedy), block.frame, source.name
