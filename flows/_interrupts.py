"""Ctrl-C while the command `flows` still imports the package: one line and status 130, as at any later time. It imports
nothing of the package, and is imported before all its other modules."""

import os
import signal
import sys
import threading
from typing import Any


def is_command() -> bool:
    """Return whether Python was started as `flows` or `python -m flows`."""
    return (sys.argv[:1] == ["-m"] and sys.orig_argv[1:3] == ["-m", "flows"]) or os.path.basename(
        sys.argv[0] or ""
    ).removesuffix(".exe") == "flows"


def _stop(number: int, frame: Any) -> None:
    os.write(2, b"flows: stopped; nothing was written\n")
    os._exit(130)  # modules are half imported


def at_once() -> None:
    """End the command at a Ctrl-C, unless interrupts are ignored or have another handler."""
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded and is_command() and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _stop)


def as_usual() -> None:
    """Leave interrupts to Python again."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


at_once()
