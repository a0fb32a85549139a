"""`flows.keep_programs`: JAX keeps compiled programs in a folder, where the next process finds them."""

import math
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.monitoring

from flows.core import FlowsError, shortened, warn_user
from flows.persistence.folder import ProgramFolder, private_folder

ENABLED = "jax_enable_compilation_cache"  # JAX's setting: whether it keeps programs
DIRECTORY = "jax_compilation_cache_dir"  # JAX's setting: in which folder
THRESHOLD = "jax_persistent_cache_min_compile_time_secs"
USUAL_THRESHOLD = 1.0  # JAX's own: programs that compile in less than a second are not kept
BEFORE_READING = "/jax/compilation_cache/compile_requests_use_cache"  # JAX's event before it looks for a program
COMPILED = "/jax/core/compile/backend_compile_duration"
LONG = 3.0  # seconds of compiling after which a bar says how to keep programs

_in_use: ProgramFolder | None = None  # where this module made JAX keep programs
_compiled = math.nan  # seconds, counted from the first call of `seconds_of_compiling`
_advised = False


def keep_programs(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Keep compiled programs on disk, so that the next process reads them instead of compiling.

    Most of a first fit, first score or first draw is compiling, in every process again. After this call, which belongs at the
    top of a script, JAX writes each program that it compiles to a folder, and looks there before it compiles. A program is
    known by what it computes, the versions of jax and XLA, and the processor; results are the same, bit for bit.

    Where JAX keeps programs already (`JAX_COMPILATION_CACHE_DIR`), it goes on doing so there: of its settings only the
    threshold of compile time becomes 0, unless it was set. It is 0 in a folder of ours, too, as a fit is many short programs.

    A program that is read back is run: whoever can write to the folder can run code as you. It is made readable and writable
    for you alone, and refused where it belongs to others, others may write to it or put another in its place, or others may
    read it and it holds other files, whose mode is not ours to change. At each call the programs that were not
    used for longest are deleted until the rest is less than 500 MB; a program that was cut short, by a full disk or a kill,
    is deleted and compiled again. A program of more than 600 kernels, such as a deep model that is not a loop, is compiled
    each time: XLA may end a process that reads one twice as large.

    Args:
        folder: on this machine; by default `jax-flows/programs` in the user's cache folder, which is `$XDG_CACHE_HOME`, or else
            `~/.cache`, `~/Library/Caches` or `%LOCALAPPDATA%` by the system. It is made where it is not there. A later call
            with another one keeps programs there from then on.

    Returns:
        The folder in which programs are kept. None where there is none: a warning says why, or JAX keeps programs in a store
        that is not a folder, such as `gs://...`.

    Errors:
        TypeError: folder is not a path. FlowsError: it is an address, or not the name of a folder; it is refused, as above.

    Example:
        >>> import flows
        >>> flows.keep_programs()  # doctest: +SKIP
        PosixPath('/home/ada/.cache/jax-flows/programs')
    """
    global _in_use, _advised
    _advised = True
    if folder is not None:
        check_name(folder)
    if not setting(ENABLED):
        warn_user("keep_programs: no programs are kept, as jax_enable_compilation_cache is off; remove that setting")
        return None
    if sys.platform == "darwin" and jax.__version_info__ < (0, 10):
        warn_user(
            f"keep_programs: no programs are kept, as jax {jax.__version__} may crash when it reads them; use 0.10 or newer"
        )
        return None
    configured = setting(DIRECTORY)
    still = _in_use.folder if configured and _in_use is not None and configured == str(_in_use.folder) else None
    if configured and still is None:
        no_threshold()
        if folder is not None and Path(folder).expanduser().absolute() != Path(configured).absolute():
            warn_user(
                f"keep_programs: JAX keeps programs in {configured} already (jax_compilation_cache_dir), and goes on there; "
                f"{os.fspath(folder)} is not used. Remove that setting to use it"
            )
        return None if "://" in configured else Path(configured)
    try:
        path = still if still is not None and folder is None else private_folder(folder)
        programs = ProgramFolder(path)
        damaged = programs.look_first()
        programs.shrink()
    except (OSError, RuntimeError) as error:  # RuntimeError: no home is known
        instead = "every process compiles again" if still is None else f"JAX goes on keeping them in {still}"
        warn_user(
            f"keep_programs: no programs are kept there, and {instead}: {error}. Make the folder writable, or name another: "
            "flows.keep_programs('programs')"
        )
        return still
    if damaged:
        warn_user(
            f"keep_programs: {damaged} of the programs in {path} were damaged; they are deleted, and compiled again when needed"
        )
    if _in_use is None:
        jax.monitoring.register_event_listener(_look_before_reading)
    if configured != str(path):
        from jax.experimental.compilation_cache import compilation_cache

        jax.config.update(DIRECTORY, str(path))
        compilation_cache.reset_cache()  # JAX has looked for a cache once, if it has compiled anything
    no_threshold()
    _in_use = programs
    return path


def setting(name: str) -> Any:
    return getattr(jax.config, name)


def check_name(folder: str | os.PathLike[str]) -> None:
    """Refuse what is not the name of a folder."""
    name = os.fspath(folder) if isinstance(folder, str | os.PathLike) else None
    if not isinstance(name, str):
        raise TypeError(f"keep_programs: folder is {shortened(folder)}; expected a path, or None for the user's cache folder")
    if not name:
        raise FlowsError("keep_programs: folder is empty; expected a path, such as 'programs', or None for the user's")
    try:
        possible = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise FlowsError(
            f"keep_programs: folder is {shortened(folder)}, and no folder can have this name; expected a path, "
            "such as 'programs'"
        )
    if "://" in name:
        raise FlowsError(
            f"keep_programs: folder is {name}; expected one of this machine. Give JAX the address of a store "
            "yourself: jax.config.update('jax_compilation_cache_dir', ...)"
        )


def no_threshold() -> None:
    """Have short programs kept too, unless someone set from which compile time they are."""
    if setting(THRESHOLD) == USUAL_THRESHOLD and THRESHOLD.upper() not in os.environ:
        jax.config.update(THRESHOLD, 0.0)


def _look_before_reading(event: str, **_: Any) -> None:
    """Look at what was written since the last look, by this process or another, before JAX reads it."""
    if event == BEFORE_READING and _in_use is not None and setting(DIRECTORY) == str(_in_use.folder):
        try:
            _in_use.look()
        except OSError:  # JAX will find the same, and warn
            return


def seconds_of_compiling() -> float:
    """The seconds that this process has compiled since the first call."""
    global _compiled

    def count(event: str, duration_secs: float, **_: Any) -> None:
        global _compiled
        _compiled += duration_secs * (event == COMPILED)

    if math.isnan(_compiled):
        _compiled = 0.0
        jax.monitoring.register_event_duration_secs_listener(count)
    return _compiled


def advice(seconds: float) -> str | None:
    """Return what to say, once in a process, of these seconds of compiling; None where programs are kept, or time is short."""
    global _advised
    if _advised or setting(DIRECTORY) or not setting(ENABLED) or seconds <= LONG:
        return None
    _advised = True
    return f"compiling took {seconds:.0f} s: flows.keep_programs(), called first, keeps programs for the next process"
