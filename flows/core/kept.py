"""A folder of programs that JAX wrote: what in it can be read, and how much of it stays."""

import importlib
import os
import re
import zlib
from contextlib import suppress
from pathlib import Path

LIMIT = 500_000_000  # bytes
# XLA for CPUs links the kernels of a program that it reads back each within the last, on one stack [jaxlib 0.10.2 on Linux: 850
# go well, 1,200 end the process; a default fit has 250].
MOST_KERNELS = 600
KERNEL = b"\x7fELF", b"\xcf\xfa\xed\xfe"  # with which the machine code of one begins, on Linux and macOS
PROGRAM = re.compile(r".+-[0-9a-f]{64}-cache")  # JAX's names; nothing else is touched
ZSTANDARD = b"\x28\xb5\x2f\xfd"
LOOKED = ".looked"  # a file whose time is that of the last look


class Kept:
    """The programs of a folder, each of which is looked at once: later processes go by the time of the last look."""

    def __init__(self, folder: Path):
        self.folder, self.seen, self.changed, self.looked = folder, set[str](), 0, _time(folder / LOOKED)

    def look_first(self) -> int:
        """As `look`, and note when."""
        now = self.folder / f"{LOOKED}-{os.getpid()}"
        now.touch()  # by the clock of the folder, and before the look: what is written meanwhile is looked at again
        damaged = self.look()
        os.replace(now, self.folder / LOOKED)
        return damaged

    def look(self) -> int:
        """Delete, of the programs that were written since the last look, those that must not be read; and return how many of
        these were damaged."""
        changed, damaged = _time(self.folder), 0
        if changed == self.changed:
            return 0
        for entry in self.programs():
            if entry.name not in self.seen:
                self.seen.add(entry.name)
                with suppress(FileNotFoundError):  # another process deletes, too
                    if entry.stat().st_mtime_ns >= self.looked:
                        kernels = kernels_of(Path(entry).read_bytes())
                        damaged += kernels is None
                        if kernels is None or kernels > MOST_KERNELS:
                            self.seen.discard(entry.name)
                            os.unlink(entry)
        self.changed = changed
        return damaged

    def shrink(self) -> None:
        """Delete the programs that were not used for longest, until the rest is within the limit."""
        found = []
        for entry in self.programs():
            with suppress(FileNotFoundError):
                of = entry.stat()
                found.append((max(of.st_atime, of.st_mtime), of.st_size, entry.path))
        size = sum(own for _, own, _ in found)
        for _, own, path in sorted(found):
            if size <= LIMIT:
                return
            with suppress(FileNotFoundError):
                os.unlink(path)
            size -= own

    def programs(self) -> list[os.DirEntry]:
        with os.scandir(self.folder) as entries:
            return [entry for entry in entries if PROGRAM.fullmatch(entry.name) and entry.is_file()]


def kernels_of(program: bytes) -> int | None:
    """How many kernels a program has, as JAX wrote it; None where it is damaged."""
    try:
        code = unpacked(program)
    except Exception:  # of whichever library; a checksum finds what is cut short or has changed
        return None
    return sum(map(code.count, KERNEL))


def unpacked(program: bytes) -> bytes:
    """As JAX compresses it: by Zstandard where Python has that, by zlib otherwise."""
    if not program.startswith(ZSTANDARD):
        return zlib.decompress(program)
    for name in ("compression.zstd", "zstandard"):
        with suppress(ImportError):
            return importlib.import_module(name).decompress(program)
    return b""  # JAX asks for none of these here


def _time(path: Path) -> int:
    """When a file or what a folder lists was changed, in nanoseconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
