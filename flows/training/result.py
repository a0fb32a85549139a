"""What a fit returns."""

from collections.abc import Iterable
from typing import Any

import jax

from flows.core import Distribution, part_of
from flows.core.contract import DistributionLike
from flows.core.inputs import as_context, as_event
from flows.core.publish import publish
from flows.training.history import History


class FitResult(Distribution):
    """A fitted distribution, `params, log_pdf, sample = result`, and the history of its fit.

    It is a pytree of its params: `jax.tree.map` and `jax.jit` take it, `_replace` gives it other params, and `pickle` makes
    the functions anew of `init_fun`.

    Attributes:
        init_fun: the fitted model as a constructor's value, with its standardisation inside.
        input_dim, context_dim: what init_fun was called with.
        history: "train" and "validation", the loss after each epoch (minus the mean log_pdf, nats a row, original units), and
            "best_epoch", counted from 0, whose params these are, or -1 for those of the start, whose validation loss is
            "start"; "skipped", how many steps of each epoch were not taken; "gaussian", the loss of the closed-form Gaussian on
            the same held-out rows (of vectors of at most 512 columns; with a context its mean is linear in it); "batch_size",
            "max_epochs" and "patience", as they were used. A dict that draws itself: `history.plot()`. `history.interrupted` is
            whether Ctrl-C ended the fit.
    """

    init_fun: DistributionLike
    input_dim: Any
    context_dim: Any
    history: History

    def __new__(cls, params, log_pdf, sample, init_fun=None, input_dim=None, context_dim=0, history=None, **more):
        self = super().__new__(cls, params, log_pdf, sample)
        history = History() if history is None else history
        vars(self).update(init_fun=init_fun, input_dim=input_dim, context_dim=context_dim, history=history, **more)
        return self

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        jax.tree_util.register_pytree_with_keys(cls, _flatten, _unflatten)

    def __repr__(self) -> str:
        best = self.history.get("best_epoch")
        epochs = ""
        if best is not None:
            loss = self.history["validation"][best] if best >= 0 else self.history["start"]
            epochs = f", {f'epoch {best}' if best >= 0 else 'the start'}: {loss:.4f} nats"
        return f"{type(self).__name__}({self.init_fun!r}{epochs})"

    def _replace(self, **changes: Any) -> "FitResult":
        has = {**self._asdict(), **self._attributes()}
        if unknown := changes.keys() - has:
            raise TypeError(f"_replace: {type(self).__name__} has no {', '.join(sorted(unknown))}; it has {', '.join(has)}")
        return type(self)(**{**has, **changes})

    def __reduce__(self) -> tuple:
        return _made_anew, (type(self), jax.device_get(self.params), self._attributes())

    def _attributes(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def save(self, path: Any, metadata: dict | None = None, *, allow_nan: bool = False) -> None:
        """Write the model to one file, for `flows.load(path)`; arguments as of `flows.save`."""
        from flows.persistence import save

        save(path, self.init_fun, self.params, self.input_dim, self.context_dim, metadata, allow_nan=allow_nan)


def _made_anew(kind: type[FitResult], params: Any, attributes: dict[str, Any]) -> FitResult:
    event, context = as_event(attributes["input_dim"]), as_context(attributes["context_dim"])
    part = part_of(attributes["init_fun"], jax.random.key(0), event, context)
    params = jax.tree.map(jax.numpy.asarray, params)
    return kind(params, *publish(part, params), **attributes)


class _Rest:
    """All of a result but its params; that of two results is equal where their functions are."""

    def __init__(self, result: FitResult):
        self.result, self.functions = result._replace(params=None), result[1:]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rest) and self.functions == other.functions

    def __hash__(self) -> int:
        return hash(self.functions)


def _flatten(result: FitResult) -> tuple[tuple, _Rest]:
    return ((jax.tree_util.GetAttrKey("params"), result.params),), _Rest(result)


def _unflatten(rest: _Rest, children: Iterable[Any]) -> FitResult:
    (params,) = children
    return rest.result._replace(params=params)


jax.tree_util.register_pytree_with_keys(FitResult, _flatten, _unflatten)
