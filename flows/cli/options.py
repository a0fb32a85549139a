"""Options that several commands have."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, Optional

import typer

from flows.cli.failures import answered

READING = "Reading"
Data = Annotated[str, typer.Argument(metavar="DATA", help="CSV, Parquet or npy; - is CSV from stdin.", show_default=False)]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A file that `flows fit` wrote.", show_default=False)]
Output = Annotated[str, typer.Option("-o", "--output", help="The file to write; - is stdout.")]
Condition = Annotated[
    Optional[list[str]],
    typer.Option("--condition", metavar="COL", help="A column on which the others depend; `flows sample` can be given it."),
]
Ignore = Annotated[Optional[list[str]], typer.Option("--ignore", metavar="COL", help="A column that is not read.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
DropGaps = Annotated[bool, typer.Option("--drop-gaps", help="Leave out rows without a number or a date.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of all that is random.")]
Format = Annotated[
    Optional[str], typer.Option("--format", help="csv, parquet or npy; by default that of the ending.", rich_help_panel=READING)
]
Separator = Annotated[
    Optional[str],
    typer.Option(
        "--separator",
        help="Of CSV, such as ';' or '\\t'; by default a comma, or what the model was fitted to.",
        rich_help_panel=READING,
    ),
]
Encoding = Annotated[
    Optional[str],
    typer.Option("--encoding", help="Of CSV; by default utf-8, or what the model was fitted to.", rich_help_panel=READING),
]
Gaps = Annotated[
    Optional[str],
    typer.Option(
        "--gaps",
        help="Texts of missing values beside empty cells, by default NA,N/A,NaN,nan,NULL,null,None.",
        rich_help_panel=READING,
    ),
]
NoHeader = Annotated[
    Optional[bool],
    typer.Option(
        "--no-header/--header", help="Of CSV whose first row is one of data: columns are 0, 1, ...", rich_help_panel=READING
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one object of JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors and results.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep no compiled programs for later commands.")]


@dataclass(frozen=True)
class Shared:
    """Options that several commands have, in the order in which help shows them; a command lacks some."""

    drop_gaps: DropGaps = False
    seed: Seed = 0
    force: Force = False
    format: Format = None
    separator: Separator = None
    encoding: Encoding = None
    gaps: Gaps = None
    no_header: NoHeader = None
    json: Json = False
    quiet: Quiet = False
    debug: Debug = False
    no_cache: NoCache = False


FILES = ("format", "separator", "encoding", "gaps", "no_header")  # how a file is read


def command(*names: str) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """A command of typer from a function that takes `shared` first: these options, and json, quiet and debug, are its own."""
    has = {*names, "json", "quiet", "debug"}
    shared = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(Shared)
        if field.name in has
    ]

    def spread(run: Callable[..., int | None]) -> Callable[..., int]:
        @functools.wraps(run)
        def call(**options: Any) -> int:
            given = Shared(**{one.name: options.pop(one.name) for one in shared})
            return answered(lambda: run(**options, shared=given), given.quiet, given.debug)

        _, *own = (one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in inspect.signature(run).parameters.values())
        call.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in (*own, *shared)}
        return call

    return spread


def marks_of(separator: str) -> str:
    """A separator as it is written in a shell."""
    return {"\\t": "\t", "tab": "\t"}.get(separator, separator)


def is_tsv(path: str) -> bool:
    """Tell whether the ending tells that tabs separate its values."""
    return path.lower().endswith(".tsv")
