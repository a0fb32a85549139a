"""The command `flows`, also as `python -m flows`."""

import os
import signal
import sys
import threading
from functools import partial
from typing import Any

from flows import _interrupts


def interrupt_again(ignored: Any) -> None:
    """Repeat a Ctrl-C a moment later where Python cannot raise it, as in callbacks of JAX at garbage collection."""
    if ignored.exc_type is KeyboardInterrupt:
        again = signal.raise_signal if os.name == "nt" else partial(os.kill, os.getpid())  # os.kill would be the end there
        threading.Timer(0.01, again, (signal.SIGINT,)).start()
    else:
        sys.__unraisablehook__(ignored)


def main() -> None:
    """Run the command line; without its extra, say how to install that."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the parent: the next file that is opened would get its number
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    out: Any = sys.stdout
    out.reconfigure(encoding=None if out.isatty() else "utf-8", errors="backslashreplace")  # as files are, whatever the locale
    sys.unraisablehook = interrupt_again
    _interrupts.at_once()
    try:
        from flows.cli.app import run
    except ImportError as error:
        if not (error.msg or "").startswith("the command flows needs"):
            raise
        print(f"flows: {error}", file=sys.stderr)
        sys.exit(2)
    _interrupts.as_usual()
    status = run(sys.argv[1:])
    if status == 130:  # threads may still run, and modules must not disappear under them
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
