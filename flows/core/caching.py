"""What is made once: a bounded cache, and a digest that says whether two functions compute the same."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun

T = TypeVar("T")


class Memo:
    """A bounded cache that forgets what was used longest ago."""

    def __init__(self, size: int):
        self.size, self.entries, self.lock = size, OrderedDict[Hashable, Any](), threading.RLock()
        _MEMOS.append(self)

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """The entry of `key`, made if it is not there. What is made for the key None is never kept."""
        if key is None:
            return make()
        key = (jax.config.jax_enable_x64, key)  # type: ignore[attr-defined]  # which decides the dtype of every constant
        with self.lock:
            if key in self.entries:
                self.entries.move_to_end(key)
                return self.entries[key]
        made = make()
        with self.lock:
            made = self.entries.setdefault(key, made)
            while len(self.entries) > self.size:
                self.entries.popitem(last=False)
        return made


_MEMOS: list[Memo] = []


@contextmanager
def fresh_caches() -> Iterator[None]:
    """Inside a `with`, the caches start empty: everything is made anew, and what was there before comes back after."""
    before = [(memo, memo.entries) for memo in _MEMOS]
    for memo in _MEMOS:
        memo.entries = OrderedDict()
    try:
        yield
    finally:
        for memo, entries in before:
            memo.entries = entries


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
        memo.entries.clear()


def program(function: Callable, first: Any, *rest: Any) -> str | None:
    """A digest of what a function computes of arguments of these shapes: equal digests, equal results.

    The derivative by the first argument is part of it, as two functions may agree in their values alone. None is for what
    cannot be told: a program that holds a tracer or calls Python back, or that JAX can neither trace nor differentiate.
    """

    def backward(first: Any, *rest: Any) -> Any:
        outputs, pull_back = jax.vjp(lambda first: function(first, *rest), first)
        return outputs, pull_back(outputs)

    def forward(first: Any, *rest: Any) -> Any:  # a loop whose length is not known has no other derivative
        return jax.jvp(lambda first: function(first, *rest), (first,), (first,))

    for derivative in (backward, forward):
        try:
            jaxpr = jax.make_jaxpr(derivative)(first, *rest)
            if holds_tracer(jaxpr):
                return None
            text = jax.jit(jaxpr_as_fun(jaxpr)).lower(*jax.tree.leaves((first, *rest))).as_text()
        except (TypeError, ValueError, NotImplementedError, jax.errors.JAXTypeError, jax.errors.UnexpectedTracerError):
            continue
        if "callback" in text:
            return None
        digest = hashlib.sha256(text.encode())
        for each in map(np.asarray, jaxpr.consts):
            digest.update(f"{each.dtype}{each.shape}".encode() + each.tobytes())
        return digest.hexdigest()
    return None


def holds_tracer(jaxpr: Any) -> bool:
    """Whether a traced function closes over a tracer of another trace, which JAX notes as a constant of its program."""
    return any(isinstance(constant, jax.core.Tracer) for constant in jaxpr.consts)
