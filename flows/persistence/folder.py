"""The folder in which programs are kept.

A program that is read back is run. So the folder is its owner's alone, and programs that are damaged, or that XLA would not
survive to read, are deleted before JAX reads them.
"""

import importlib
import os
import re
import stat
import sys
import zlib
from contextlib import suppress
from pathlib import Path

from flows.core import FlowsError

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
