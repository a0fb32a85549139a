"""Bounded caches of what is made once."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax

T = TypeVar("T")


class Memo:
    """A bounded cache that forgets what was used longest ago. Entries of 64-bit mode are apart from the others."""

    def __init__(self, size: int):
        self.size, self.entries, self.lock = size, OrderedDict[tuple[bool, Any], Any](), threading.RLock()
        _MEMOS.append(self)

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """The entry of `key`, made if it is not there. What is made for the key None is never kept."""
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

    def keep(self, key: Hashable, made: T) -> T:
        """The entry of `key`: what was made, unless another thread was faster."""
        full_key = (bool(jax.config.jax_enable_x64), key)  # type: ignore[attr-defined]
        with self.lock:
            made = self.entries.setdefault(full_key, made)
            while len(self.entries) > self.size:
                self.entries.popitem(last=False)
        return made

    def keys(self) -> list[Any]:
        """Keys of this mode, the last used last."""
        with self.lock:
            return [key for wide, key in self.entries if wide == jax.config.jax_enable_x64]  # type: ignore[attr-defined]

    def exchange(self, entries: OrderedDict) -> OrderedDict:
        """Put other entries in the place of those that are there, and return these."""
        with self.lock:
            self.entries, before = entries, self.entries
        return before


_MEMOS: list[Memo] = []
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def fresh_caches() -> Iterator[None]:
    """Inside a `with`, the caches start empty: everything is made anew, and what was there before comes back after."""
    with _ONE_AT_A_TIME:
        before = [memo.exchange(OrderedDict()) for memo in _MEMOS]
        try:
            yield
        finally:
            for memo, entries in zip(_MEMOS, before, strict=True):
                memo.exchange(entries)


def clear_caches() -> None:
    """Forget every model's functions; the next call of a model compiles again.

    Needed after a change that no argument of a constructor shows: a module's variable that a decorated layer or a function
    given to one reads is read when it is first traced, and so is the state of any object that is given to one.

    Example:
        >>> import flows
        >>> log_pdf = flows.Flow(flows.ActNorm())(0, 2).log_pdf
        >>> flows.clear_caches()
        >>> flows.Flow(flows.ActNorm())(0, 2).log_pdf is log_pdf
        False
    """
    for memo in _MEMOS:
        memo.exchange(OrderedDict())
