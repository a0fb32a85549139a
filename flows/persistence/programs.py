"""`flows.keep_programs`: JAX keeps compiled programs in a folder, where the next process finds them.

A program that is read back is run. So the folder is its owner's alone, and programs that are damaged, or that XLA would not
survive to read, are deleted before JAX reads them.
"""

import importlib
import math
import os
import re
import stat
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.monitoring

from flows.core import FlowsError, shortened, warn_user

ENABLED = "jax_enable_compilation_cache"  # JAX's setting: whether it keeps programs
DIRECTORY = "jax_compilation_cache_dir"  # JAX's setting: in which folder
THRESHOLD = "jax_persistent_cache_min_compile_time_secs"
USUAL_THRESHOLD = 1.0  # JAX's own: programs that compile in less than a second are not kept
BEFORE_READING = "/jax/compilation_cache/compile_requests_use_cache"  # JAX's event before it looks for a program
COMPILED = "/jax/core/compile/backend_compile_duration"
LONG = 3.0  # seconds of compiling after which a bar says how to keep programs
LIMIT = 500_000_000  # bytes
# XLA for CPUs links the kernels of a program that it reads back each within the last, on one stack [jaxlib 0.10.2 on Linux: 850
# go well, 1,200 crash; a default fit has 250].
MOST_KERNELS = 600
KERNEL = b"\x7fELF", b"\xcf\xfa\xed\xfe"  # with which the machine code of one begins, on Linux and macOS
PROGRAM = re.compile(r".+-[0-9a-f]{64}-cache")  # JAX's names; nothing else is touched
ZSTANDARD = b"\x28\xb5\x2f\xfd"
LOOKED = ".looked"  # a file whose time is the time of the last look
OURS = re.compile(  # what JAX, XLA and this module write into the folder
    rf"{PROGRAM.pattern}|.+-[0-9a-f]{{64}}-atime|\.lockfile|xla_gpu_\w+|{re.escape(LOOKED)}(-\d+)?"
)

_in_use: "ProgramFolder | None" = None  # where this module made JAX keep programs
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


def folder_in_use() -> str | None:
    """Return where `keep_programs` keeps programs, for a worker: "" for the user's cache folder, None for nowhere."""
    if _in_use is None or setting(DIRECTORY) != str(_in_use.folder):
        return None
    return "" if _in_use.folder == user_folder().absolute().resolve() else str(_in_use.folder)


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


# The folder


class ProgramFolder:
    """The programs of a folder, each of which is looked at once: later ones go by the time of the last look."""

    def __init__(self, folder: Path):
        self.folder, self.checked, self.changed, self.looked = folder, set[str](), 0, _time(folder / LOOKED)

    def look_first(self) -> int:
        """Look, and note when."""
        now = self.folder / f"{LOOKED}-{os.getpid()}"
        now.touch()  # by the clock of the folder, and before the look: what is written meanwhile is looked at again
        damaged = self.look()
        os.replace(now, self.folder / LOOKED)
        return damaged

    def look(self) -> int:
        """Delete programs that were written since the last look and must not be read; and return how many of these were
        damaged."""
        changed, damaged = _time(self.folder), 0
        if changed == self.changed:
            return 0
        for entry in self.programs():
            if entry.name not in self.checked:
                self.checked.add(entry.name)
                with suppress(FileNotFoundError):  # others delete, too
                    if entry.stat().st_mtime_ns >= self.looked:
                        kernels = kernels_of(Path(entry).read_bytes())
                        damaged += kernels is None
                        if kernels is None or kernels > MOST_KERNELS:
                            self.checked.discard(entry.name)
                            os.unlink(entry)
        self.changed = changed
        return damaged

    def shrink(self) -> None:
        """Delete the programs that were not used for longest, until the rest is within the limit."""
        files = []
        for entry in self.programs():
            with suppress(FileNotFoundError):
                status = entry.stat()
                files.append((max(status.st_atime, status.st_mtime), status.st_size, entry.path))
        size = sum(file_size for _, file_size, _ in files)
        for _, file_size, path in sorted(files):
            if size <= LIMIT:
                return
            with suppress(FileNotFoundError):
                os.unlink(path)
            size -= file_size

    def programs(self) -> list[os.DirEntry]:
        with os.scandir(self.folder) as entries:
            return [entry for entry in entries if PROGRAM.fullmatch(entry.name) and entry.is_file()]


def kernels_of(program: bytes) -> int | None:
    """The number of kernels of a program, as JAX wrote it; None where it is damaged."""
    try:
        code = unpacked(program)
    except Exception:  # of either library; a checksum finds a program that is cut short or has changed
        return None
    return sum(map(code.count, KERNEL))


def unpacked(program: bytes) -> bytes:
    """The bytes that JAX compressed: by Zstandard where Python has that, by zlib otherwise."""
    if not program.startswith(ZSTANDARD):
        return zlib.decompress(program)
    for name in ("compression.zstd", "zstandard"):
        with suppress(ImportError):
            return importlib.import_module(name).decompress(program)
    return b""  # JAX asks for none of these here


def _time(path: Path) -> int:
    """The time when a file or the list of a folder was changed, in nanoseconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def private_folder(folder: str | os.PathLike[str] | None) -> Path:
    """The folder, made where it is not there. Symbolic links are followed: their target is judged, and used."""
    path = (user_folder() if folder is None else Path(folder)).expanduser().absolute()
    modes = sys.platform != "win32"
    if modes:
        check_parents(path.resolve())
    for directory in (*reversed(path.parents), path):
        if not directory.exists():
            directory.mkdir(mode=0o700, exist_ok=True)
    path = path.resolve(strict=True)
    if modes:
        make_private(path)
    return path


def make_private(path: Path) -> None:
    """Refuse a folder that others own or may write to; and one that they may read, unless it holds nothing but programs."""
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.getuid():
        raise FlowsError(
            f"keep_programs: {path} belongs to user {status.st_uid}, and you are {os.getuid()}; programs from there would "
            "be run. Name a folder of your own: flows.keep_programs('programs')"
        )
    if mode & 0o022:
        raise FlowsError(
            f"keep_programs: others may write to {path} (mode {mode:o}), and programs from there would be run. Name another "
            f"folder, or delete what is in this one and make it yours alone: chmod 700 '{path}'"
        )
    if mode & 0o077:
        if others := sorted(name for name in os.listdir(path) if not OURS.fullmatch(name)):
            raise FlowsError(
                f"keep_programs: others may read {path} (mode {mode:o}), and it holds other files, such as {others[0]}, so its "
                "mode is left as it is. Name a folder within it, which is made for you alone: "
                f"flows.keep_programs({str(path / 'programs')!r})"
            )
        path.chmod(mode & ~0o077)


def check_parents(path: Path) -> None:
    """Refuse a folder in whose place others could put theirs: they may rename what is in a folder that they may write to,
    unless it is sticky, as /tmp is."""
    for parent in filter(Path.is_dir, path.parents):
        status = parent.stat()
        mode = stat.S_IMODE(status.st_mode)
        shared = mode & 0o002 or (mode & 0o020 and not is_private(status.st_gid))
        if shared and not mode & stat.S_ISVTX:
            raise FlowsError(
                f"keep_programs: others may write to {parent} (mode {mode:o}), so they could put a folder of theirs in the "
                f"place of {path}, and programs from there would be run. Name a folder elsewhere, or make that one yours to "
                f"write: chmod go-w '{parent}'"
            )


def is_private(group: int) -> bool:
    """Tell whether a group is the user's alone: many systems make one for each user, which may write all the user makes."""
    import grp  # not on Windows
    import pwd

    try:
        user, record = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return group == user.pw_gid and record.gr_name == user.pw_name and set(record.gr_mem) <= {user.pw_name}


def user_folder() -> Path:
    """The folder where this system keeps files that programs of the user can make again."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(configured):
        caches = Path(configured)
    elif sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path.home() / ".cache"
    return caches / "jax-flows" / "programs"
