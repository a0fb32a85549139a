"""Simulations: parameters and what a simulator made of them, in memory or in a folder that a killed run goes on with."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flows.core import Array, FlowsError, Shape, pieces_of
from flows.sbi.prior import Prior

try:
    import fcntl
except ImportError:  # Windows, where a folder cannot be locked
    fcntl = None  # type: ignore[assignment]

IN_MEMORY = 2**30  # bytes, from which rows of a folder stay on the disk
DONE, FAILED = 1, 2
HELD = set[int]()  # descriptors of folders that are locked
ABOUT = "about.json"


class Simulations:
    """Parameters `theta`, (n, d), and simulations `x`, (n, *shape), in rows that belong together.

    `len(sims)`, slices `sims[:100]` and `a + b` are as for lists. Rows of more than 1 GiB from a folder are memory maps.

    Attributes:
        valid: which rows are finite in theta and x, (n,).

    Errors:
        FlowsError: arrays of another number of rows, theta that is not (n, d), or x without an axis of rows. TypeError: values
            that are not real numbers.

    Example:
        >>> import flows, numpy as np
        >>> sims = flows.sbi.Simulations(np.zeros((3, 2)), np.array([[1.0], [np.nan], [2.0]]))
        >>> len(sims + sims[:1]), sims.valid.tolist()
        (4, [True, False, True])
    """

    def __init__(self, theta: Any, x: Any):
        self.theta, self.x = (array if isinstance(array, np.ndarray) else np.asarray(array) for array in (theta, x))
        for name, array in (("theta", self.theta), ("x", self.x)):
            if array.dtype.kind not in "fiub":
                raise TypeError(f"Simulations: {name} has dtype {array.dtype}; expected real numbers")
        if (
            self.theta.ndim != 2
            or self.x.ndim < 2
            or len(self.theta) != len(self.x)
            or 0 in self.theta.shape[1:] + self.x.shape[1:]
        ):
            raise FlowsError(
                f"Simulations: theta has shape {self.theta.shape} and x {self.x.shape}; expected (n, d) and (n, *shape), one "
                "row of x for each of theta"
            )

    @property
    def valid(self) -> np.ndarray:
        rows = np.ones(len(self), bool)
        for array in (self.theta, self.x):
            for piece in pieces_of(len(self), array.shape[1:]):
                rows[piece] &= np.isfinite(array[piece]).reshape(len(array[piece]), -1).all(1)
        return rows

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, rows: Any) -> "Simulations":
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"Simulations: row {rows} of {len(self)}")
            rows = slice(rows, rows + 1 or None)
        return Simulations(self.theta[rows], self.x[rows])

    def __add__(self, other: "Simulations") -> "Simulations":
        if not isinstance(other, Simulations):
            return NotImplemented
        shapes = [(sims.theta.shape[1:], sims.x.shape[1:]) for sims in (self, other)]
        if shapes[0] != shapes[1]:
            raise FlowsError(
                f"Simulations: rows of theta and x have shapes {shapes[0]}, and others {shapes[1]}; expected equal"
            )
        return Simulations(np.concatenate([self.theta, other.theta]), np.concatenate([self.x, other.x]))

    def __repr__(self) -> str:
        return f"Simulations of {len(self):,} rows: theta {self.theta.shape}, x {self.x.shape}"


def as_sets(sets: Sequence[Any], most: int | None = None) -> np.ndarray:
    """Pad sets to one shape, for `flows.conditioners.DeepSet(mask=True)`: (sets, most, features + 1), where the last feature is
    1 for an element, and 0 behind the last.

    Args:
        sets: arrays (elements, features), or (elements,) of one feature.
        most: the number of elements of the largest set that there may be; by default the largest of these.

    Errors:
        FlowsError: a set of other features, without elements, or of more than `most`.

    Example:
        >>> import flows, numpy as np
        >>> flows.sbi.as_sets([np.array([5.0, 6.0]), np.array([7.0])]).tolist()
        [[[5.0, 1.0], [6.0, 1.0]], [[7.0, 1.0], [0.0, 0.0]]]
    """
    arrays = [np.asarray(one)[:, None] if np.ndim(one) == 1 else np.asarray(one) for one in sets]
    if not arrays:
        raise FlowsError("as_sets: there are no sets; expected arrays (elements, features)")
    most = max(map(len, arrays)) if most is None else most
    for i, array in enumerate(arrays):
        if array.ndim != 2 or array.shape[1] != arrays[0].shape[1] or not 0 < len(array) <= most:
            raise FlowsError(
                f"as_sets: set {i} has shape {array.shape}; expected (elements, {arrays[0].shape[-1]}) of 1 to {most} elements"
            )
    padded = np.zeros((len(arrays), most, arrays[0].shape[1] + 1), np.result_type(np.float32, *arrays))
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array), :-1], row[: len(array), -1] = array, 1
    return padded


@contextmanager
def locked(path: Any) -> Iterator[None]:
    """Make a folder, and keep other calls from writing to it; a kill ends a lock, too."""
    if path is None:
        yield
        return
    try:
        os.makedirs(path, exist_ok=True)
        if fcntl is not None:
            HELD.add(descriptor := os.open(path, os.O_RDONLY))
    except OSError as error:
        raise FlowsError(f"simulate: path is {path!s:.200}, which cannot be a folder ({error.strerror})") from None
    if fcntl is None:
        yield
        return
    try:
        _lock(descriptor, path)
        yield
    finally:
        _release(descriptor)


def _release(*descriptors: int) -> None:
    """Close these descriptors, or all."""
    for descriptor in HELD.intersection(descriptors or HELD):
        HELD.remove(descriptor)
        os.close(descriptor)


if fcntl is not None:
    os.register_at_fork(after_in_child=_release)  # a worker that was forked would keep the lock of its parent


def _lock(descriptor: int, path: Any) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FlowsError(
            f"simulate: another call is writing to {path!s:.200} now; wait until it ends, or give another folder"
        ) from None
    except OSError:  # a disk without locks
        pass


class Store:
    """Rows on their way from a simulator to `Simulations`: theta, x and what is done, in memory or in files of a folder.

    A row counts once its mark in `done` is set, which comes after its numbers; rows of `open_marks` are run again.
    """

    def __init__(self, path: Any, prior: Prior, key: Array, n: int, open_marks: tuple[int, ...] = (0,)):
        self.folder, self.n, self.x, self.open_marks = None if path is None else Path(path), n, None, open_marks
        about = {"format": 1, "prior": prior.digest(), "rng": np.asarray(jax.random.key_data(key)).ravel().tolist()}
        if self.folder is None:
            self.theta, self.done = np.zeros((n, prior.size), prior.dtype), np.zeros(n, np.uint8)
            return
        self._check(about)
        marks = self._read("done") if self._file("done").exists() else np.zeros(0, np.uint8)
        for name in ("theta", "x") if marks.any() and (marks == DONE).any() else ():
            if not self._file(name).exists() or len(self._read(name)) < len(marks):
                raise self._damaged(f"{name}.npy has fewer rows than done.npy says")
        count = max(n, len(marks))
        self.theta = self._grown("theta", count, (prior.size,), prior.dtype)
        if self._file("x").exists():
            x = self._read("x")
            self.x = self._grown("x", count, x.shape[1:], x.dtype)
        self.done = self._grown("done", count, (), np.dtype(np.uint8))  # last: it says which rows of the others count

    def _check(self, about: dict[str, Any]) -> None:
        """Refuse a folder of other simulations."""
        file = self.folder / ABOUT  # type: ignore[operator]
        if not file.exists():
            if any(self._file(name).exists() for name in ("theta", "x", "done")):
                raise self._damaged(f"{ABOUT} is missing")
            _write(file, json.dumps(about).encode())
            return
        try:
            known = json.loads(file.read_text())
        except ValueError as error:
            raise self._damaged(f"{ABOUT}: {error}") from None
        for name, what in (("format", "format"), ("prior", "prior"), ("rng", "rng")):
            if not isinstance(known, dict) or known.get(name) != about[name]:
                raise FlowsError(
                    f"simulate: {self.folder} has simulations of another {what}; expected an empty folder, or equal"
                )

    def _damaged(self, what: str) -> FlowsError:
        return FlowsError(f"simulate: the folder {self.folder} is damaged ({what}); give another one, or remove it")

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"  # type: ignore[operator]

    def _read(self, name: str, mode: Any = "r") -> np.ndarray:
        try:
            array = np.load(self._file(name), mmap_mode=mode, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(f"{name}.npy: {error}") from None
        if not array.ndim or array.dtype.kind not in "fu":
            raise self._damaged(f"{name}.npy is of dtype {array.dtype} and shape {array.shape}")
        return array

    def _grown(self, name: str, n: int, shape: Shape, dtype: np.dtype) -> np.ndarray:
        """Return a file of at least n rows, which is written to; one that is too short is replaced by a longer copy."""
        file, old = self._file(name), None
        if file.exists():
            old = self._read(name, "r+")
            if old.shape[1:] != shape or old.dtype != dtype:
                raise self._damaged(f"{name}.npy has rows of {old.dtype} {old.shape[1:]}; expected {dtype} {shape}")
            if len(old) >= n:
                return old
        longer = file.with_suffix(".part")
        new = np.lib.format.open_memmap(longer, mode="w+", dtype=dtype, shape=(n, *shape))
        if old is not None:
            for rows in pieces_of(len(old), shape):
                new[rows][: len(old[rows])] = old[rows]
        new.flush()
        os.replace(longer, file)
        return new

    @property
    def left(self) -> np.ndarray:
        """The numbers of rows that are not done."""
        return np.flatnonzero(np.isin(self.done[: self.n], self.open_marks))

    def write(self, numbers: np.ndarray, theta: np.ndarray, rows: Sequence[Any]) -> None:
        """Write rows by their numbers; None stands for one that failed."""
        if self.x is None:
            first = next((row for row in rows if row is not None), None)
            if first is not None:
                shape, count = (len(self.theta), *first.shape), len(self.theta)
                self.x = np.zeros(shape, first.dtype) if self.folder is None else self._grown("x", count, *_of(first))
                self.x[self.done == FAILED] = np.nan
        self.theta[numbers] = theta
        if isinstance(rows, np.ndarray) and self.x is not None:
            if _of(rows[0]) != _of(self.x[0]):
                now, before = (f"{row.dtype} {row.shape}" for row in (rows[0], self.x[0]))
                raise FlowsError(f"simulate: rows are {now}, and earlier rows in {self.folder} {before}; expected one kind")
            self.x[numbers] = rows
            self.done[numbers] = DONE
            return
        for i, row in zip(numbers, rows, strict=True):
            if self.x is not None:
                self.x[i] = np.nan if row is None else row
            self.done[i] = FAILED if row is None else DONE

    def simulations(self) -> Simulations:
        """Return the rows that were asked for."""
        if self.x is None:
            raise FlowsError(
                f"simulate: all of {self.n:,} rows failed, so there is nothing to learn from; run the simulator by hand"
            )
        theta, x = self.theta[: self.n], self.x[: self.n]
        if self.folder is not None and x.nbytes + theta.nbytes < IN_MEMORY:
            theta, x = np.array(theta), np.array(x)
        return Simulations(theta, x)


def _of(row: np.ndarray) -> tuple[Shape, np.dtype]:
    """Return the shape and the dtype of a row."""
    return row.shape, row.dtype


def _write(file: Path, content: bytes) -> None:
    """Write a file as a whole, so that it is never half there."""
    part = file.with_suffix(".part")
    part.write_bytes(content)
    os.replace(part, file)
