"""Models fitted to rows that are ready: one, or the members of an ensemble."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from operator import getitem, itemgetter
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import (
    Array,
    BijectionInit,
    DistributionInit,
    FlowsError,
    Given,
    initialize,
    part_of,
    positive_int,
    stacked,
    trainable,
)
from flows.core.closures import UNEQUAL
from flows.core.contract import DistributionLike
from flows.core.errors import warn_user
from flows.core.inputs import as_array, as_context, as_dim, as_event, as_key, cast
from flows.core.publish import publish
from flows.distributions.flow import Flow
from flows.distributions.gmm import GMM
from flows.distributions.mixture import Mixture
from flows.training.before import split_off
from flows.training.checkpoint import Checkpoint, settings_of
from flows.training.data_checks import check_data
from flows.training.diagnose import cause
from flows.training.history import History
from flows.training.loop import train
from flows.training.losses import Likelihood, has_running_statistics
from flows.training.options import FEW, FOLDS, Options
from flows.training.preprocess import Prepared, prepare_folds
from flows.training.reading import Data, all_rows, read, unsplit
from flows.training.result import FitResult
from flows.training.step import Epochs, schedule_of, trainer
from flows.training.stream import Stream
from flows.transformers import CubicSpline, LinearRational, LinearSpline, QuadraticSpline, RationalQuadratic

SPLINES = (CubicSpline, LinearRational, LinearSpline, QuadraticSpline, RationalQuadratic)
MIXTURES = (GMM, Mixture)
OUTSIDE = 0.01  # of the values: what may lie outside the splines' range


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleOptions(Options):
    members: Annotated[int, partial(positive_int, most=10_000)] = 8
    folds: int | None = 1
    caller: str = "fit_ensemble"


class EnsembleResult(FitResult):
    """A fitted ensemble: the mixture of its members, with equal weights, as a distribution like any other.

    Attributes:
        members: how many.
        member: the model of one, as a constructor's value.
        path: where the mixture of the members is in params.
        history: as of `FitResult`, with a leading axis of members.
    """

    members: int
    member: DistributionLike
    path: tuple[str, ...]

    def log_pdfs(self, params: Any, inputs: Any, *, context: Any = None, rng: Any = None) -> Array:
        """log p(x) of every member, (members, batch), in nats: where they differ, the data did not say.

        Args:
            params: those of the ensemble.
            inputs: (batch, *event).
            context, rng: as of log_pdf; each member has a key of its own.
        """
        mixture = params
        for name in (*self.path, "components"):
            if not isinstance(mixture, dict) or name not in mixture:
                raise FlowsError(
                    "log_pdfs: params are not those of this ensemble; give result.params, or what you made of them"
                )
            mixture = mixture[name]
        context = None if context is None else as_array(context, "context")
        keys = None if rng is None else jax.random.split(as_key(rng), self.members)
        return _of_members(self._of_one, self.path, self.members, params, as_array(inputs, "inputs"), context, keys)

    @cached_property
    def _of_one(self) -> Callable:
        """log_pdf of a member."""
        part = part_of(self.member, jax.random.key(0), as_event(self.input_dim), as_context(self.context_dim))
        components = reduce(getitem, (*self.path, "components"), self.params)
        return publish(part, _with(self.params, self.path, jax.tree.map(lambda leaf: leaf[0], components)))[0]

    def __repr__(self) -> str:
        return f"EnsembleResult({self.init_fun!r}, {self.members} members)"


def warn_of_range(model: Any, rows: Prepared) -> None:
    """Say where more than a hundredth of the values lie outside the splines' range, where they are the identity."""
    if rows.trained_with_layers or not isinstance(model, DistributionInit):
        return
    bounds = [value.arguments["bound"] for value in model.values_within() if value.constructor in SPLINES]
    outside = 0.0 if not bounds else float((jnp.abs(rows.train.x) > min(bounds)).mean())
    if outside > OUTSIDE:
        wide = float(np.quantile(np.abs(np.asarray(rows.train.x)), 1 - OUTSIDE / 10))
        warn_user(
            f"fit: {outside:.1%} of the standardised values lie beyond +-{min(bounds):g}, outside the range of the splines, "
            f"where these are the identity. Give a larger bound, such as {wide:.2g}, or a base with tails, such as "
            "StudentT(trainable=True)"
        )


def ready(data: Any, options: Options, key: Array, init_fun: Any) -> tuple[Prepared, Any]:
    """The rows of data for a training, read, checked, and on the device in the units of the model; and the model to train."""
    found = read(data, options, key)
    own, model = own_layers(init_fun, found, options)
    mixed = isinstance(model, DistributionInit) and any(
        each.constructor in MIXTURES for each in (model, *model.values_within())
    )
    folds = folds_of(model, found, options, key)
    columns = check_data(found if folds == 1 else unsplit(found, options), options, own, mixed)
    rows = prepare_folds(found, columns, options, key, own, folds)
    warn_of_range(model, rows)
    return rows, model


def folds_of(model: Any, found: Data, options: Options, key: Array) -> int:
    """Over how many folds models are averaged: by default where few rows have to train more numbers than they are."""
    if options.folds is not None or options.validation is not None or found.source.chunks is not None:
        return options.folds or 1
    x, context, _ = found.train
    rows = len(all_rows(found))
    if rows >= FEW or rows < 2 * FOLDS or not _is_flow(model) or model.likelihood != "exact":
        return 1
    part = part_of(model, key, x.shape[1:], None if context is None else context.shape[1:])
    return FOLDS if num_trained(jax.eval_shape(lambda: part.init(key, Given()))) > rows else 1


def num_trained(params: Any) -> int:
    """How many numbers are trained."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(trainable(params)), strict=True)
    return sum(int(leaf.size) for leaf, trains in pairs if trains)


def _is_flow(model: Any) -> bool:
    return isinstance(model, DistributionInit) and model.constructor is Flow


def own_layers(init_fun: Any, data: Data, options: Options) -> tuple[tuple[BijectionInit, ...], Any]:
    """The layers of a model that the rows go through before they are standardised, and the model that is left."""
    if options.standardize is False:
        return (), init_fun
    x, context, _ = data.train
    return split_off(init_fun, x.shape[1:], None if context is None else context.shape[1:])


def fit_rows(key: Array, init_fun: Any, rows: Prepared, options: Options) -> FitResult:
    """Fit one model, or with folds several, to rows that are ready, and give it as the user sees it."""
    if rows.folds:
        return fit_members(key, init_fun, rows, replace(options, members=len(rows.folds)))
    params, history = train_members(key, init_fun, rows, options, rows.outer_params)
    flow = rows.outer(init_fun)
    functions = publish(part_of(flow, key, rows.event, rows.context), params)
    return FitResult(params, *functions, flow, as_dim(rows.event), as_dim(rows.context), history)


def train_members(
    key: Array, init_fun: Any, rows: Prepared, options: Options, outer: Callable[[Any], Any]
) -> tuple[Any, History]:
    """Train one model, or the members of an ensemble: the params that were best, as a user sees them, and the history.

    Params of members have a leading axis, and each member has an init and an order of rows of its own. `outer` makes a user's
    params of those that are trained.
    """
    members, source, inner = options.members, rows.source, rows.inner(init_fun)
    options = options.settled(source.batch_size, source.steps)
    keys = key if members is None else jax.random.split(key, members)
    key_of_member = [key] if members is None else list(keys)
    starts, parts = list[Any](), list[Any]()
    for i, each in enumerate(key_of_member):
        own = rows.of_member(i)
        start, part = initialize(inner, each, rows.event, rows.context, own.given)
        starts.append(cast(own.inner_params(start), source.dtype))
        parts.append(part)
    part, start = parts[0], starts[0]
    if rows.context is not None and "context" not in part.keywords:
        raise TypeError(f"{options.caller}: context was given, but no layer of {init_fun!r} takes one; leave it out")
    another = part_of(inner, jax.random.fold_in(key, 1), rows.event, rows.context)  # as that of the result will be
    if part.compiled and any(each is not part for each in (*parts, another)):
        raise FlowsError(UNEQUAL.format(name=f"{options.caller}: the functions of {init_fun!r:.80}"))
    params = start if members is None else stacked(starts)
    if not any(jax.tree.leaves(trainable(start))):
        options = replace(options, max_epochs=1)

    part_of_batch = source.batch_size // options.accumulate
    problem = Likelihood(part, part_of_batch, options.precision, has_running_statistics(start))
    compiled = trainer(problem, start, options, source.dtype, bool(rows.folds))
    schedule = schedule_of(options, options.max_epochs * source.steps)
    epochs: Any = Epochs(rows, compiled, schedule, keys)
    if source.chunks is not None:
        epochs = Stream(rows, compiled, schedule, keys, source.chunks)
    saved = None
    if options.checkpoint is not None:
        saved = Checkpoint(options, settings_of(rows.outer(init_fun), key, source.given, options, batch_size=source.batch_size))

    def why(params: Any, number: int, step: int | None, member: int) -> str:
        own = rows.of_member(member)
        suspects = own.suspects() if step is None else epochs.suspects(number, step, member)
        return cause(part, params, suspects, key_of_member[member], own.deviations)

    with contextlib.nullcontext() if part.compiled else jax.disable_jit():  # what runs row by row is never traced
        size = math.prod(rows.event)
        best, history = train(compiled, params, epochs.run, epochs.score, options, saved, why, outer, size, rows.yardstick)
    return outer(best), history


def fit_members(key: Array, model: Any, rows: Prepared, options: Options) -> EnsembleResult:
    """Fit an ensemble to rows that are ready, and give it as the user sees it."""
    members = options.members or 1

    def mixed(components: Any) -> Any:
        dtype = next((leaf.dtype for leaf in jax.tree.leaves(components)), jnp.float32)
        return {"components": components, "fixed": {"logits": jnp.full(members, -np.log(members), dtype)}}

    def outer(trained: Any) -> Any:
        if not rows.folds:
            return rows.outer_params(trained, mixed)
        own = [jax.tree.map(itemgetter(i), trained) for i in range(members)]
        return mixed(stacked([fold.outer_params(each) for fold, each in zip(rows.folds, own, strict=True)]))

    def several(model: Any) -> Any:
        return Mixture(model, num_components=members, trainable=False)

    params, history = train_members(key, model, rows, options, outer)
    member = rows.outer(model)
    flow = several(member) if rows.folds else rows.outer(several(model))
    functions = publish(part_of(flow, key, rows.event, rows.context), params)
    dims, path = (as_dim(rows.event), as_dim(rows.context)), () if rows.folds else rows.path
    return EnsembleResult(params, *functions, flow, *dims, history, members=members, member=member, path=path)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _of_members(
    of_one: Callable, path: tuple[str, ...], members: int, params: Any, inputs: Array, context: Any, keys: Any
) -> Array:
    def of_member(own: Any, key: Any) -> Array:
        return of_one(_with(params, path, own), inputs, context=context, **({} if key is None else {"rng": key}))

    return jax.vmap(of_member, axis_size=members)(reduce(getitem, (*path, "components"), params), keys)


def _with(params: Any, path: tuple[str, ...], new: Any) -> Any:
    """`params` with `new` at `path`."""
    return new if not path else {**params, path[0]: _with(params[path[0]], path[1:], new)}
