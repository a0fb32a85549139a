"""The rows of an iterable of batches, gathered in any number, and where to go on in it later."""

import base64
import json
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core import FlowsError
from flows.results.frames import in_order, named_apart
from flows.training.data.table import Headers, Rows, Table, read_rows, take


class Piece(NamedTuple):
    """A batch of an iterable, of which some rows at its beginning were used, and the state of the iterator before it."""

    rows: Rows
    used: int
    state: Any

    @property
    def left(self) -> int:
        """The number of rows that were not used."""
        return len(self.rows.x) - self.used


class Batches:
    """The rows of an iterable of batches, one after the other; it starts again when it ends, if it can.

    An iterator with `get_state` and `set_state`, as Grain's have them, can go on later where it was.
    """

    def __init__(self, data: Any):
        self.data, self.iterator, self.once = data, iter(data), iter(data) is data
        self.has_state = hasattr(self.iterator, "get_state") and hasattr(self.iterator, "set_state")
        self.seen = 0
        self.like: Any = None  # the shapes of a row and of its context
        self.headers: Headers = (None, None)
        self.pieces = self.last = self._next()
        self.event = self.pieces[0].rows.x.shape[1:] if self.pieces else ()

    def gathered(self, count: int) -> Table | None:
        """Take n rows; None where fewer are left."""
        while sum(piece.left for piece in self.pieces) < count:
            if not (more := self._next()):
                return None
            self.pieces = self.pieces + more
        self.last, taken, left = self.pieces, list[Rows](), count
        while left:
            piece, *rest = self.pieces
            used = piece.used + min(left, piece.left)
            taken.append(take(piece.rows, slice(piece.used, used)))
            left -= used - piece.used
            self.pieces = [*([piece._replace(used=used)] if used < len(piece.rows.x) else []), *rest]
        first = self.seen - sum(piece.left for piece in self.pieces) - count
        rows = jax.tree.map(lambda *arrays: np.concatenate(arrays), *taken)
        return Table.of(rows, self.headers, np.arange(first, first + count))

    def put_back(self) -> None:
        """Give the last rows again."""
        self.pieces = self.last

    def state(self) -> Any:
        """How to go on after the rows so far: the state of the iterator and how many rows of its next batch were used."""
        if not self.has_state:
            return None
        state, used = (self.pieces[0].state, self.pieces[0].used) if self.pieces else (self.iterator.get_state(), 0)
        if isinstance(state, bytes):
            return {"iterator": {"bytes": base64.b64encode(state).decode()}, "used": used}
        try:
            return {"iterator": {"json": json.loads(json.dumps(state))}, "used": used}
        except TypeError:
            raise FlowsError(
                f"fit: get_state() of data is {state!r:.60}, which a checkpoint cannot hold; expected bytes, or what JSON "
                "can hold"
            ) from None

    def restore(self, state: Any) -> None:
        """Go on from a state, as a checkpoint holds it."""
        self.iterator = self.iterator if self.once else iter(self.data)
        try:
            saved = state["iterator"]
            self.iterator.set_state(base64.b64decode(saved["bytes"]) if "bytes" in saved else saved["json"])
        except Exception as error:
            raise FlowsError(
                f"fit: data cannot go on from the state that the checkpoint has ({type(error).__name__}: {error!s:.300}). Give "
                "the iterable that the fit began with, or another folder"
            ) from error
        self.pieces = [piece._replace(used=state["used"]) for piece in (self._next() if state["used"] else [])]

    def _next(self) -> list[Piece]:
        """The next batch, or none at the end."""
        before = self.iterator.get_state() if self.has_state else None
        batch = next(self.iterator, None)
        if batch is None and not self.once:
            self.iterator = iter(self.data)
            before = self.iterator.get_state() if self.has_state else None
            batch = next(self.iterator, None)
        if batch is None:
            return []
        x, context = batch if isinstance(batch, tuple) and len(batch) == 2 else (batch, None)
        name = f"a batch after row {self.seen} of data"
        if self.like is None:
            self.headers = named_apart(x, f"fit: {name}"), named_apart(context, "fit: context")
        header, context_header = self.headers
        context = in_order(context, context_header, f"fit: the context of {name}")
        rows = read_rows(in_order(x, header, f"fit: {name}"), context, name)
        if not len(rows.x):
            raise FlowsError(f"fit: {name} has no rows; expected at least one in each batch")
        like = jax.tree.map(lambda array: array.shape[1:], rows)
        self.like = like if self.like is None else self.like
        if self.like != like:
            raise FlowsError(f"fit: {name} has rows of shape {like[:2]}; those before it {self.like[:2]}")
        self.seen += len(rows.x)
        return [Piece(rows, 0, before)]
