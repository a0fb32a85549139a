"""Options that several commands have, each stated once, the decorator that gives them to a command, and errors as one line and
an exit status."""

import functools
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Annotated, Any, Optional

import typer

from flows.core import FlowsError

USER, BUG, STOPPED = 2, 1, 130

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
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of all random numbers.")] = 0
    force: Annotated[bool, typer.Option("--force", help="Replace an output that exists.")] = False
    format: Annotated[Optional[str], reading("--format", help="csv, parquet or npy; by default that of the ending.")] = None
    separator: Annotated[
        Optional[str],
        reading("--separator", help="Separator of CSV, such as ';' or '\\t'; by default ',' or what the model was fitted to."),
    ] = None
    encoding: Annotated[
        Optional[str], reading("--encoding", help="Encoding of CSV; by default utf-8, or what the model was fitted to.")
    ] = None
    gaps: Annotated[
        Optional[str],
        reading("--gaps", help="Texts that mean a missing value, as empty cells do; by default NA,N/A,NaN,nan,NULL,null,None."),
    ] = None
    no_header: Annotated[
        Optional[bool],
        reading("--no-header/--header", help="CSV without a header: columns are 0, 1, ..."),
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


class Mistake(Exception):
    """A mistake that the user can correct: a file, a row, an option."""


def answered(command: Callable[[], int | None], quiet: bool, debug: bool) -> int:
    """The exit status of a command, 0 if it returns none; errors and warnings of the library are lines on stderr."""

    def show(message: Warning | str, *_: Any) -> None:
        if not quiet:
            print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.showwarning = show  # type: ignore[assignment]
    return flushed(lambda: _status_of(command, debug))


def flushed(status: Callable[[], int]) -> int:
    """The status of a command, once all that it prints is written."""
    try:
        result = status()
        sys.stdout.flush()
        return result
    except BrokenPipeError:  # the reader of our output has closed it
        _close_stdout()
        return 0
    except OSError as error:
        _close_stdout()
        where = error.filename or "stdin or stdout"
        return tell(USER, f"cannot read or write {where}: {error.strerror or error}; expected a place with room for it")


def tell(status: int, message: str) -> int:
    """One line on stderr, where that can be written to."""
    with suppress(OSError):
        print(f"flows: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return status


def _status_of(call: Callable[[], int | None], debug: bool) -> int:
    try:
        return call() or 0
    except OSError:  # of stdin and stdout, as errors of files become others where they occur
        raise
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exception(error)
        if isinstance(error, KeyboardInterrupt):
            return tell(STOPPED, str(error) or "stopped; nothing was written")
        if isinstance(error, Mistake | FlowsError):
            return tell(USER, str(error))
        if isinstance(error, MemoryError):
            return tell(USER, "there is not enough memory; give --rows to fit, or fewer columns")
        return tell(BUG, f"{type(error).__name__}: {error}. This is a bug of flows. Please report it, with what --debug shows")


def _close_stdout() -> None:
    """Discard what is printed from here on, so that Python does not complain when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
