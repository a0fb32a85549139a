"""Calls of functions of many keywords: what is missing or unknown is told with what to do."""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# How other libraries call them.
ELSEWHERE = {
    "epochs": "max_epochs", "n_epochs": "max_epochs", "num_epochs": "max_epochs", "lr": "learning_rate",
    "max_patience": "patience", "val_prop": "validation", "validation_split": "validation", "val_data": "validation",
    "sample_weight": "weights", "condition": "context", "conditions": "context", "seed": "rng", "key": "rng",
    "random_state": "rng", "show_progress": "verbose", "optim": "optimizer", "y": "context",
}  # fmt: skip


def explained_call(example: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that refuses a call which does not fit with the name that was meant, and an `example` of a call."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                name, unknown = function.__name__, [each for each in kwargs if each not in signature.parameters]
                if not unknown:
                    raise TypeError(f"{name}: {error}; expected a call such as {example}") from None
                meant = ELSEWHERE.get(unknown[0])
                known = list(signature.parameters)
                close = [meant] if meant in known else difflib.get_close_matches(unknown[0], known)
                remedy = f"; did you mean {close[0]}=?" if close else "."
                own = ", ".join(each.name for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY)
                raise TypeError(f"{name}: it takes no {unknown[0]}={remedy} Its keywords are {own}") from None
            return function(*args, **kwargs)

        return call

    return decorate
