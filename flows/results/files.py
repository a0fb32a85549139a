"""Results in files: history, names and scores as tensors beside the params, and `flows.load`, which gives all of it back."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np

from flows.core import Bijection, BijectionInit, FlowsError, from_json, to_json
from flows.core.publish import publish
from flows.persistence.models import TEXT, PathLike, load_model
from flows.results.ensemble import EnsembleResult
from flows.results.frames import Columns
from flows.results.history import History
from flows.results.result import FitResult

HISTORY, SCORES = "history/", "scores"
KINDS = "biuf"  # of the arrays of a history
NAMES = {"table", "context_table", "interrupted", "members", "path", "member", "metadata"}


def load(path: PathLike, constructors: Iterable[Callable] = (), *, max_bytes: int | None = None) -> Bijection | FitResult:
    """The model that `save` wrote: the triple that its init_fun returns, with the params of the file.

    A distribution comes as a `FitResult`, with the history, the columns and the held-out scores that `result.save` wrote. Its
    functions are those of any equal model made before: what was compiled is not compiled again.

    Args:
        path: a file that `save` wrote.
        constructors: your own constructors (decorated functions, not called) that the model was made with.
        max_bytes: what the params of the model, its masks and other constants may take, so that a small file cannot ask for
            all of the memory; by default 20 times the file, and no less than 4 MiB. A model has at most 10,000 layers and
            components, or one for each 500 of these bytes, of which a layer that is unlike those before counts as 20 and one of
            a network as 10. A file has at most 10,000 constructors, and a header of at most 1 MiB.

    Returns:
        A `Bijection` or a `FitResult`, which is a `Distribution`.

    Errors:
        FlowsError: a file that is missing, damaged, foreign, or describes a model that cannot be made here. TypeError: one
            of `constructors` is not a constructor.

    Example:
        >>> import flows, jax.numpy as jnp, tempfile
        >>> @flows.bijection
        ... def Shift(by=1.0):
        ...     return lambda rng, shape: ({}, lambda params, x: (x + by, 0.0 * x.sum()), lambda params, y: y - by)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     flows.save(f"{folder}/model", Shift(2.0), {}, 1)
        ...     params, direct_fun, inverse_fun = flows.load(f"{folder}/model", constructors=[Shift])
        >>> direct_fun(params, jnp.zeros((1, 1)))[0].tolist()
        [[2.0]]
    """
    with load_model(path, constructors, max_bytes) as model:
        functions = publish(model.part, model.params)
        if isinstance(model.init_fun, BijectionInit):
            return Bijection(model.params, *functions)
        return _result(model, functions)


def to_tensors(result: FitResult) -> dict[str, Any]:
    """What a result has besides its model: arrays by name, and a text."""
    arrays = {HISTORY + name: np.asarray(each) for name, each in result.history.items()}
    text: dict[str, Any] = {"interrupted": True} if result.history.interrupted else {}
    for name in ("table", "context_table"):
        if (columns := getattr(result, name)) is not None:
            text[name] = {"names": list(columns.names), "library": columns.library}
    if isinstance(result, EnsembleResult):
        text |= {"members": result.members, "path": list(result.path), "member": to_json(cast(Any, result.member))}
    if result.has_scores:
        arrays[SCORES] = result.scores
    return {name: each for name, each in arrays.items() if each.dtype.kind in KINDS} | {TEXT: text}


def _result(model: Any, functions: tuple) -> FitResult:
    arrays, text = dict(model.more), model.text
    if unknown := set(text) - NAMES:
        raise FlowsError(f"its text has {sorted(unknown)[:3]}")
    history = {}
    for name in [name for name in arrays if name.startswith(HISTORY)]:
        own = arrays.pop(name)
        history[name.removeprefix(HISTORY)] = int(own) if own.shape == () and own.dtype.kind == "i" else own
    scores = arrays.pop(SCORES, None)
    if arrays or (scores is not None and (scores.ndim not in (1, 2) or scores.dtype != np.float64)):
        raise FlowsError(f"its tensors {sorted(arrays)[:3] or [SCORES]} are not what a result has")
    own = {
        "history": History(history, interrupted=text.get("interrupted") is True),
        "table": _columns(text.get("table")),
        "context_table": _columns(text.get("context_table")),
        "scores": scores,
    }
    triple = (model.params, *functions, model.init_fun, model.input_dim, model.context_dim)
    if "members" not in text:
        return FitResult(*triple, **own)
    members, path, member = text["members"], text["path"], from_json(text["member"], model.constructors)
    if not isinstance(members, int) or not isinstance(path, list) or not all(isinstance(each, str) for each in path):
        raise FlowsError("its members are not described as those of an ensemble")
    result = EnsembleResult(*triple, members=members, member=member, path=tuple(path), **own)
    of_folds = scores is not None and scores.ndim == 2
    if any(leaf.shape[:1] != (members,) for leaf in result.leaves) or (of_folds and len(scores) != members):
        raise FlowsError(f"its params are not those of {members} members")
    return result


def _columns(described: Any) -> Columns | None:
    if described is None:
        return None
    names, library = described["names"], described["library"]
    if not isinstance(names, list) or not isinstance(library, str) or not all(isinstance(each, str) for each in names):
        raise FlowsError("its columns are not names")
    return Columns(tuple(names), library)
