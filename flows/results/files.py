"""`flows.load`: the result that was saved, with all that its file holds next to the model."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from flows.core import MOST_TURNS, Bijection, BijectionInit, FlowsError, Shape, as_context, as_event, functions_of
from flows.objectives.importance import Estimate
from flows.persistence.models import Loaded, PathLike, load_model
from flows.results.density import DIAGNOSTICS, DensityFitResult, Diagnostics, Parameters
from flows.results.ensemble import EnsembleResult
from flows.results.frames import LIBRARIES, Header
from flows.results.held_out import Scored
from flows.results.history import ROW_COUNTS, History
from flows.results.result import COLUMN_SCORES, GAP_SCORES, HISTORY, PARAMETERS, SCORE_WEIGHTS, SCORES, TURN, FitResult

WHOLE = {"best_epoch", *ROW_COUNTS, "batch_size", "max_epochs", "patience", "skipped", "stacked"}
MORE = SCORES, SCORE_WEIGHTS, COLUMN_SCORES, GAP_SCORES, DIAGNOSTICS, TURN
TEXTS = {"table", "context_table", "interrupted", "objective", "likelihood", "path", "metadata", PARAMETERS}


def load(path: PathLike, constructors: Iterable[Callable] = (), *, max_bytes: int | None = None) -> Bijection | FitResult:
    """Load the model that `save` wrote: the triple that its init_fun returns, with the params of the file.

    A distribution comes as a `FitResult`, with the history, the columns and the held-out scores that `result.save` wrote. It
    shares its functions with any equal model made before: compiled functions are not compiled again.

    Args:
        path: a file that `save` wrote, or an open binary file.
        constructors: your own constructors (decorated functions, not called) that the model was made with.
        max_bytes: the most memory for params of the model, its masks and other constants, so that a small file cannot ask for
            all of the memory; by default 20 times the file, and at least 4 MiB. A model has at most 10,000 layers and
            components, or one for each 500 of these bytes, where a layer unlike the layers before counts as 20, and a layer of
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
        functions = functions_of(model.part, model.params)
        if isinstance(model.init_fun, BijectionInit):
            return Bijection(model.params, *functions)
        return _result(model, functions)


def _result(model: Loaded, functions: tuple) -> FitResult:
    arrays, text = dict(model.more), model.text
    if unknown := set(text) - TEXTS:
        raise FlowsError(f"its text has {sorted(unknown)[:3]}")
    stored = {name: arrays.pop(name) for name in list(arrays) if name.startswith(HISTORY)}
    scores, weights, by_columns, by_gaps, numbers, turn = (arrays.pop(name, None) for name in MORE)
    if arrays or ("path" in text and numbers is not None):
        raise FlowsError(f"its tensors {sorted(arrays)[:3] or [DIAGNOSTICS]} do not belong to such a result")
    fields: dict[str, Any] = {
        "table": _columns(text.get("table"), as_event(model.input_dim)),
        "context_table": _columns(text.get("context_table"), as_context(model.context_dim)),
        "metadata": text.get("metadata"),
        "named": _parameters(text, model),
        "turn": None if turn is None else _turn(turn, model.part),
    }
    objective, interrupted = text.get("objective"), text.get("interrupted") is True
    if objective is not None and not (isinstance(objective, str) and len(objective) <= 200):
        raise FlowsError(f"its objective is {objective!r:.80}; expected the name of a function")
    losses = {name.removeprefix(HISTORY): array for name, array in stored.items()}
    history = History(losses, interrupted=interrupted, objective=objective)
    triple: Any = (model.params, *functions, model.init_fun, model.input_dim, model.context_dim, history)
    result: FitResult
    if "path" in text:
        path = text["path"]
        if not isinstance(path, list) or not all(isinstance(name, str) for name in path):
            raise FlowsError("the path of its members is not a list of names, as an ensemble has it")
        result = EnsembleResult(*triple, path=tuple(path), **fields)
    elif numbers is not None:
        fields |= {"diagnostics": _diagnostics(numbers), "log_weights": None}
        result = DensityFitResult(*triple, **fields)
    else:
        result = FitResult(*triple, **fields)
    members = result.members if isinstance(result, EnsembleResult) else None
    _check_history(history, members)
    result.scored = _scored(model, members, scores, weights, by_columns, by_gaps)
    return result


def _scored(model: Loaded, members: int | None, scores: Any, weights: Any, by_columns: Any, by_gaps: Any) -> Scored | None:
    """Return the scores of rows held out; refuse what is not scores."""
    right = scores is None or (scores.dtype == np.float64 and scores.shape[:-1] in ((), (members,)) and scores.size)
    if not right or (scores is not None and np.isnan(scores).any()):
        raise FlowsError(f"its scores have shape {scores.shape}, or are not numbers")
    if weights is not None and (scores is None or not _are_weights(weights, scores.shape)):
        raise FlowsError(f"its weights of scores have shape {weights.shape}, or are not weights")
    for name, array, more in (("by columns", by_columns, 0), ("with gaps", by_gaps, 1)):
        if array is not None and (scores is None or array[..., : -model.input_dim - more].shape != scores.shape):
            raise FlowsError(f"its scores {name} have shape {array.shape}, which does not fit its scores")
    if by_gaps is not None and not np.isfinite(by_gaps).all():
        raise FlowsError("its scores with gaps are not finite")
    return None if scores is None else Scored(model.params, scores, weights, by_columns, by_gaps)


def _diagnostics(numbers: np.ndarray) -> Diagnostics:
    """Read the diagnostics of a file; files of older versions lack the numbers of modes and of starts."""
    counts = numbers[4:]
    if numbers.shape not in ((5,), (6,), (7,)) or numbers.dtype.kind != "f" or not ((counts >= 0) & (counts < 2**53)).all():
        raise FlowsError(f"its {DIAGNOSTICS} do not belong to a fit to a density")
    size, value, error, k = map(float, numbers[:4])
    return Diagnostics(size, Estimate(value, error), k, *map(int, counts))


def _parameters(text: dict[str, Any], model: Loaded) -> Parameters | None:
    if PARAMETERS not in text:
        return None
    described = text[PARAMETERS]
    if not isinstance(described, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in described):
        raise FlowsError(f"its {PARAMETERS} are {described!r:.80}; expected names and shapes")
    named = Parameters.of({name if isinstance(name, str) else "": shape for name, shape in described}, "its file")
    if len(named.names) != len(described) or (named.size,) != as_event(model.input_dim):
        raise FlowsError(f"its {PARAMETERS} have {named.size} numbers, and the model {model.input_dim}")
    return named


def _are_weights(weights: np.ndarray, shape: Shape) -> bool:
    right = weights.dtype == np.float64 and weights.shape == shape
    return right and bool(np.isfinite(weights).all() and (weights >= 0).all() and weights.any())


def _check_history(history: History, members: int | None) -> None:
    """Refuse a history that no fit has: losses by epoch, for an ensemble with a leading axis of members, and numbers."""
    front, epochs = () if members is None else (members,), np.shape(history.get("validation_loss", 0.0))[-1:]
    shapes = {name: (*front, *epochs) for name in ("train_loss", "validation_loss", "skipped")}
    shapes |= dict.fromkeys(("best_epoch", "start_loss", "error"), front)
    for name, array in history.items():
        if name == "portions" and array.ndim == 1:
            continue
        if array.shape != shapes.get(name, ()) or (name in WHOLE and array.dtype.kind not in "iu"):
            raise FlowsError(f"its history has {name!r} of dtype {array.dtype} and shape {array.shape}")
    if "validation_loss" in history:
        best = history.get("best_epoch", np.array(np.nan))
        if not epochs or not ((best >= -1) & (best < epochs[0])).all():
            raise FlowsError(f"its history has the best epoch {best}, of {epochs}")
    if members is None and "best_epoch" in history:
        history["best_epoch"] = int(history["best_epoch"])


def _turn(turn: np.ndarray, part: Any) -> np.ndarray:
    """Refuse starts of turns that do not fit the angles of the model."""
    period = np.zeros(part.event) if part.region is None else part.region.period
    fits = turn.dtype == np.float64 and turn.shape == part.event and period.any()
    if not fits or not (np.abs(turn) <= (MOST_TURNS + 1) * period).all():
        raise FlowsError(f"its turns of angles have shape {turn.shape}, or do not fit this model")
    return turn


def _columns(described: Any, shape: Shape | None) -> Header | None:
    if described is None:
        return None

    def label(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(label(one) for one in value)
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise FlowsError(f"the label {value!r:.60} of its columns is not a label")
        return value

    labels, library = described["labels"], described["library"]
    if not isinstance(labels, list) or library not in LIBRARIES or shape != (len(labels),):
        raise FlowsError(f"its columns do not fit the shape {shape}")
    return Header(tuple(map(label, labels)), library)
