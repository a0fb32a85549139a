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
    """What the user has to change: a file, a row, an option."""


class Stopped(Exception):
    """Ctrl-C, after which something was saved, or could not be."""


def status_of(call: Callable[[], Any], debug: bool) -> int:
    """Run it, and say in one line what went wrong."""
    try:
        call()
        sys.stdout.flush()
        return 0
    except BrokenPipeError:  # what reads our output has seen enough
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, Stopped) as error:
        return _told(STOPPED, str(error) or "stopped; nothing was written", debug)
    except (Mistake, FlowsError) as error:
        return _told(USER, str(error), debug)
    except OSError as error:  # of stdout, as files have errors of their own
        return _told(USER, f"cannot write: {error.strerror or error}", debug)
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own
            raise
        return _told(BUG, f"{type(error).__name__}: {error}. This is a bug of flows. {REPORT}", debug)


def _told(status: int, message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    return tell(status, message)


def tell(status: int, message: str) -> int:
    """One line on stderr."""
    print(f"flows: {' '.join(message.split())}", file=sys.stderr)
    return status


def warn_in_one_line() -> None:
    """Warnings of the library as a line on stderr."""

    def show(message: Warning | str, *_: Any) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.showwarning = show  # type: ignore[assignment]
