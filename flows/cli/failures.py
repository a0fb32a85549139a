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
