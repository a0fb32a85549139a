"""`flows check`: whether the density of a model is right."""

from typing import Annotated, Any, Optional

import typer

from flows.cli.options import (
    Data,
    Debug,
    DropGaps,
    Encoding,
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

EXAMPLE = "flows check power.flows new.csv --train power.csv"
FAILED = 3  # the exit status where something FAILs


def run(
    model: Model,
    data: Data,
    train: Annotated[
        Optional[str],
        typer.Option("--train", metavar="FILE", help="Rows that the model was fitted to: are draws copies of them?"),
    ] = None,
    only: Annotated[
        Optional[list[str]],
        typer.Option("--only", metavar="NAME", help="A check to run; give it again for more. By default all."),
    ] = None,
    level: Annotated[float, typer.Option("--level", help="Of right models, the share that has a FAIL.")] = 0.01,
    n: Annotated[int, typer.Option("-n", help="Draws; with a condition 99 for each of 2,000 rows.")] = 10_000,
    drop_gaps: DropGaps = False,
    seed: Seed = 0,
    format: Format = None,
    separator: Separator = None,
    encoding: Encoding = None,
    gaps: Gaps = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    no_cache: NoCache = False,
) -> int:
    """Is the density right? A verdict for each question, by rows that the model was not fitted to; exit status 3 for a FAIL."""
    import flows
    from flows.cli.failures import Mistake
    from flows.cli.models import asked, keep_programs, kept_reading, loaded, print_json, reading_of, whole
    from flows.cli.source import Source

    _check_options(only, level, n)
    if data == train == "-":
        raise Mistake("DATA and --train are both stdin; give a file for one of them")
    table = loaded(model)
    keep_programs(no_cache)

    def read(path: str) -> Any:
        """Rows of a file; a value that is none of its column is told by its place there."""
        source = Source(path, reading_of(ReadingOptions(format, separator, encoding, gaps), path, kept_reading(table)))
        block, frame = whole(source, table.schema, drop_gaps, quiet)
        remedy = "Correct it, or leave the row out; --drop-gaps leaves out those with gaps"
        asked(table.schema.rows, frame, source.name, block, remedy)
        return frame

    seen = None if train is None else read(train)
    checks = flows.check(table, read(data), train=seen, rng=seed, samples=n, level=level, only=only or None)
    if json:
        print_json(checks.figures)
    else:
        print(checks)
    return 0 if checks.passed else FAILED


def _check_options(only: list[str] | None, level: float, n: int) -> None:
    """What is refused before there is work."""
    from flows.checks.check import QUESTIONS
    from flows.checks.sample import LEAST
    from flows.cli.failures import Mistake

    for name in only or []:
        if name not in QUESTIONS:
            raise Mistake(f"--only is {name!r}; expected one of {', '.join(QUESTIONS)}")
    if not 0 < level < 1:
        raise Mistake(f"--level is {level:g}; expected a share between 0 and 1, such as 0.01")
    if n < LEAST:
        raise Mistake(f"-n is {n}; expected {LEAST} or more")
