"""Options that several commands have, each stated once, and the decorator that gives them to a command."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, Optional

import typer

from flows.cli.failures import answered

Data = Annotated[str, typer.Argument(metavar="DATA", help="CSV, Parquet or npy; - is CSV from stdin.", show_default=False)]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A file that `flows fit` wrote.", show_default=False)]
Output = Annotated[str, typer.Option("-o", "--output", help="The file to write; - is stdout.")]
Condition = Annotated[
    Optional[list[str]],
    typer.Option("--condition", metavar="COL", help="A column on which the others depend; `flows sample` can be given it."),
]
Ignore = Annotated[Optional[list[str]], typer.Option("--ignore", metavar="COL", help="A column that is not read.")]
reading = functools.partial(typer.Option, rich_help_panel="Reading")


@dataclass(frozen=True)
class Shared:
    """Options that several commands have, in the order in which help shows them; a command lacks some."""

    drop_gaps: Annotated[bool, typer.Option("--drop-gaps", help="Leave out rows without a number or a date.")] = False
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of all that is random.")] = 0
    force: Annotated[bool, typer.Option("--force", help="Replace an output that exists.")] = False
    format: Annotated[Optional[str], reading("--format", help="csv, parquet or npy; by default that of the ending.")] = None
    separator: Annotated[
        Optional[str],
        reading("--separator", help="Of CSV, such as ';' or '\\t'; by default a comma, or what the model was fitted to."),
    ] = None
    encoding: Annotated[
        Optional[str], reading("--encoding", help="Of CSV; by default utf-8, or what the model was fitted to.")
    ] = None
    gaps: Annotated[
        Optional[str],
        reading("--gaps", help="Texts of missing values beside empty cells, by default NA,N/A,NaN,nan,NULL,null,None."),
    ] = None
    no_header: Annotated[
        Optional[bool],
        reading("--no-header/--header", help="Of CSV whose first row is one of data: columns are 0, 1, ..."),
    ] = None
    json: Annotated[bool, typer.Option("--json", help="Print one object of JSON.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors and results.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep no compiled programs for later commands.")] = False


FILES = ("format", "separator", "encoding", "gaps", "no_header")  # how a file is read


def command(*names: str) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """Make a command of typer from a function that takes `shared` first, with these options of it, json, quiet and debug."""
    options = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(Shared)
        if field.name in {*names, "json", "quiet", "debug"}
    ]

    def spread(run: Callable[..., int | None]) -> Callable[..., int]:
        @functools.wraps(run)
        def call(**values: Any) -> int:
            shared = Shared(**{option.name: values.pop(option.name) for option in options})
            return answered(lambda: run(**values, shared=shared), shared.quiet, shared.debug)

        _, *first = (one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in inspect.signature(run).parameters.values())
        # typer reads annotations, too.
        call.__signature__ = inspect.Signature([*first, *options])  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in (*first, *options)}
        return call

    return spread
