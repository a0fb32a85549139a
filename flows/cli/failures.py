"""Errors as one line and an exit status."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flows.core import FlowsError

USER, BUG, STOPPED = 2, 1, 130
REPORT = "Please report it, with what --debug shows"


class Mistake(Exception):
    """A mistake that the user can mend: a file, a row, an option."""


class Stopped(Exception):
    """Ctrl-C, after which something was saved, or could not be."""


def answered(command: Callable[[], int | None], quiet: bool, debug: bool) -> int:
    """The exit status of a command, 0 where it has none of its own; what went wrong is told on stderr."""
    _warn_in_one_line(quiet)
    return flushed(lambda: _status_of(command, debug))


def flushed(status: Callable[[], int]) -> int:
    """The status of what prints, once all is written."""
    try:
        found = status()
        sys.stdout.flush()
        return found
    except BrokenPipeError:  # what reads our output has seen enough
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
    except OSError:  # of stdin and stdout, as files have errors of their own
        raise
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exception(error)
        return tell(*_answer_to(error))


def _answer_to(error: BaseException) -> tuple[int, str]:
    """An exit status, and what to say."""
    if isinstance(error, KeyboardInterrupt | Stopped):
        return STOPPED, str(error) or "stopped; nothing was written"
    if isinstance(error, Mistake | FlowsError):
        return USER, str(error)
    if isinstance(error, MemoryError):
        return USER, "there is not enough memory; give --rows to fit, or fewer columns"
    return BUG, f"{type(error).__name__}: {error}. This is a bug of flows. {REPORT}"


def _close_stdout() -> None:
    """Send what is printed nowhere from here on, so that Python has nothing to complain of when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warn_in_one_line(quiet: bool) -> None:
    """Warnings of the library as a line on stderr, or not at all."""

    def show(message: Warning | str, *_: Any) -> None:
        if not quiet:
            print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.showwarning = show  # type: ignore[assignment]
