"""What a model that comes from a file may cost before anything of it is made."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from flows.core.errors import FlowsError

MOST_PARTS = 10_000  # constructors, and the layers and components that these stand for ...
BYTES_A_PART = 500  # ... or more where so many bytes are allowed for each
MADE, LAYER = 20, 10  # what a part that is made, or a layer of a network, counts: each takes milliseconds
LARGEST_EVENT = 2**25  # bytes: many layers make masks and places of so many entries, at 10 times as much

TOO_MUCH = "it asks for {:,} bytes or more, of which {:,} are allowed. If you trust the file, give max_bytes="
TOO_MANY = "it has more than {:,} layers and components. If you trust the file, give max_bytes="


class Budget:
    """Bytes that arrays may take, and the number of parts, each with what is spent so far."""

    def __init__(self, max_bytes: int):
        self.max_bytes, self.max_parts = max_bytes, max(MOST_PARTS, max_bytes // BYTES_A_PART)
        self.bytes, self.parts, self.copies = 0, 0, 1


_budget: ContextVar[Budget | None] = ContextVar("budget", default=None)


@contextmanager
def within(max_bytes: int) -> Iterator[None]:
    """What is made inside is counted, and refused where it would be more than that."""
    token = _budget.set(Budget(max_bytes))
    try:
        yield
    finally:
        _budget.reset(token)


def check_affordable(n: int) -> None:
    """Refuse a whole number so large that as many numbers of float32 are more than may be made."""
    budget = _budget.get()
    if budget is not None and 4 * n > budget.max_bytes:
        raise FlowsError(TOO_MUCH.format(4 * n, budget.max_bytes))


@contextmanager
def repeated(n: int) -> Iterator[None]:
    """What is made inside is copied n times, as is what it holds: copies of copies multiply."""
    budget = _budget.get()
    if budget is None:
        yield
        return
    budget.copies *= n
    try:
        if budget.copies > budget.max_parts:
            raise FlowsError(TOO_MANY.format(budget.max_parts))
        yield
    finally:
        budget.copies //= n


def spend(*, size: int = 0, parts: int = 0) -> None:
    """Count so many bytes, or parts, that are about to be made; outside of `within` nothing is counted."""
    budget = _budget.get()
    if budget is None:
        return
    budget.bytes, budget.parts = budget.bytes + size, budget.parts + parts
    if budget.bytes > budget.max_bytes:
        raise FlowsError(TOO_MUCH.format(budget.bytes, budget.max_bytes))
    if budget.parts > budget.max_parts:
        raise FlowsError(TOO_MANY.format(budget.max_parts))
