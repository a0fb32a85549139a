"""Bounded caches of what is made once; and variables that hold a value inside a `with`."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import jax

T = TypeVar("T")


@contextmanager
def assigned(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Give a variable a value inside a `with`."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class Memo:
    """A bounded cache that drops the least recently used entry. Entries of 64-bit mode are separate."""

    def __init__(self, size: int):
        self.size, self.entries, self.lock = size, OrderedDict[tuple[bool, Any], Any](), threading.RLock()
        _MEMOS.append(self)

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """The entry of `key`, made where it is missing; nothing is stored under the key None."""
        if key is None:
            return make()
        entry = self.get(key)
        return self.keep(key, make()) if entry is None else entry

    def get(self, key: Hashable) -> Any:
        """The entry of `key`, or None."""
        full_key = (bool(jax.config.jax_enable_x64), key)  # type: ignore[attr-defined]
        with self.lock:
            if full_key not in self.entries:
                return None
            self.entries.move_to_end(full_key)
            return self.entries[full_key]

    def keep(self, key: Hashable, entry: T) -> T:
        """Store an entry and return it, or return the entry that another thread has stored first."""
        full_key = (bool(jax.config.jax_enable_x64), key)  # type: ignore[attr-defined]
        with self.lock:
            entry = self.entries.setdefault(full_key, entry)
            while len(self.entries) > self.size:
                self.entries.popitem(last=False)
        return entry

    def keys(self) -> list[Any]:
        """Keys of the current mode, the most recently used last."""
        with self.lock:
            return [key for wide, key in self.entries if wide == jax.config.jax_enable_x64]  # type: ignore[attr-defined]

    def exchange(self, entries: OrderedDict) -> OrderedDict:
        """Replace the entries, and return the previous ones."""
        with self.lock:
            self.entries, before = entries, self.entries
        return before


_MEMOS: list[Memo] = []
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def fresh_caches() -> Iterator[None]:
    """Empty the caches inside a `with`; their previous entries come back after it."""
    with _ONE_AT_A_TIME:
        before = [memo.exchange(OrderedDict()) for memo in _MEMOS]
        try:
            yield
        finally:
            for memo, entries in zip(_MEMOS, before, strict=True):
                memo.exchange(entries)


def clear_caches() -> None:
    """Forget every model's functions; the next call of a model compiles again.

    Needed after a change that no argument of a constructor shows. A layer reads a global variable, or the state of an object
    that is passed to it, when it is first traced; a later change has no effect before the caches are cleared.

    Example:
        >>> import flows
        >>> log_pdf = flows.Flow(flows.ActNorm())(0, 2).log_pdf
        >>> flows.clear_caches()
        >>> flows.Flow(flows.ActNorm())(0, 2).log_pdf is log_pdf
        False
    """
    for memo in _MEMOS:
        memo.exchange(OrderedDict())
