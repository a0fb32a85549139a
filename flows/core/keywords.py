"""The closed vocabulary of keywords (context, rng, train, ...), and which of them a function names in its signature."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable)
INIT = ("context_dim", "init_inputs", "init_context", "params")
CALL = ("context", "rng", "train")
RENAMED = {"evaluation": "train= (and the opposite: train=True uses the batch)"}  # since jax-flows 0.0.1
DEFAULTS = {
    "context_dim": 0,
    "init_inputs": None,
    "init_context": None,
    "params": None,
    "context": None,
    "rng": None,
    "train": False,
}


def named_by(fun: Callable, vocabulary: tuple[str, ...]) -> frozenset[str]:
    """The keywords of `vocabulary` in the signature of `fun`; `**kwargs` names `init_inputs` and nothing else."""
    try:
        parameters = inspect.signature(fun).parameters
    except (TypeError, ValueError):  # a built-in without a signature
        return frozenset()
    names = set(parameters) & set(vocabulary)
    if any([each.kind is each.VAR_KEYWORD for each in parameters.values()]):
        names |= {"init_inputs"} & set(vocabulary)
    return frozenset(names)


def naming(fun: F, names: Iterable[str]) -> F:
    """`fun`, with a signature that shows of the vocabulary just `names`: for functions whose keywords depend on their parts."""
    everything = inspect.signature(fun).parameters.values()
    shown = [each for each in everything if each.name not in DEFAULTS or each.name in names]
    fun.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return fun


def select(names: Iterable[str], **keywords: Any) -> dict[str, Any]:
    """Just those of `keywords` that are named."""
    return {name: keywords[name] for name in keywords if name in names}


def refuse_unknown(name: str, unknown: dict[str, Any], vocabulary: tuple[str, ...]) -> None:
    if unknown:
        renamed = [f"{old}= is now {new}" for old, new in RENAMED.items() if old in unknown]
        keywords = f"the keywords are {', '.join(vocabulary)}"
        raise TypeError(f"{name}: unexpected keyword {sorted(unknown)}; {'; '.join([*renamed, keywords])}")


def signature(positional: tuple[inspect.Parameter, ...], names: Iterable[str]) -> inspect.Signature:
    """What `inspect.signature` and `help` show: the positional parameters, then the keywords that are named."""
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in DEFAULTS.items()
        if name in names
    ]
    return inspect.Signature([*positional, *keywords])


def positional(*names: str, **defaults: Any) -> tuple[inspect.Parameter, ...]:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    plain = [inspect.Parameter(name, kind) for name in names]
    return (*plain, *(inspect.Parameter(name, kind, default=value) for name, value in defaults.items()))
