"""`flows.fit_ensemble`: how far models of the same data differ."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from operator import getitem
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.core import Array, FlowsError, part_of, positive_int
from flows.core.contract import DistributionLike
from flows.core.inputs import as_array, as_context, as_dim, as_event, as_key
from flows.core.publish import publish
from flows.distributions.mixture import Mixture
from flows.training.fit import ready, train_members
from flows.training.options import EMA, LEARNING_RATE, Options, check_distribution
from flows.training.preprocess import Prepared
from flows.training.result import FitResult


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleOptions(Options):
    members: Annotated[int, partial(positive_int, most=10_000)] = 8
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

    def log_pdfs(self, params: Any, inputs: Any, *, context: Any = None) -> Array:
        """log p(x) of every member, (members, batch), in nats: where they differ, the data did not say.

        Args:
            params: those of the ensemble.
            inputs: (batch, *event).
            context: as of log_pdf.
        """
        mixture = params
        for name in (*self.path, "components"):
            if not isinstance(mixture, dict) or name not in mixture:
                raise FlowsError(
                    "log_pdfs: params are not those of this ensemble; give result.params, or what you made of them"
                )
            mixture = mixture[name]
        context = None if context is None else as_array(context, "context")
        return _of_members(self._of_one, self.path, self.members, params, as_array(inputs, "inputs"), context)

    @cached_property
    def _of_one(self) -> Callable:
        """log_pdf of a member."""
        part = part_of(self.member, jax.random.key(0), as_event(self.input_dim), as_context(self.context_dim))
        components = reduce(getitem, (*self.path, "components"), self.params)
        return publish(part, _with(self.params, self.path, jax.tree.map(lambda leaf: leaf[0], components)))[0]

    def __repr__(self) -> str:
        return f"EnsembleResult({self.init_fun!r}, {self.members} members)"


def fit_ensemble(
    rng: Any,
    init_fun: DistributionLike,
    data: Any,
    *,
    members: int = 8,
    context: Any = None,
    weights: Any = None,
    validation: Any = 0.1,
    batch_size: int | None = None,
    max_epochs: int | None = None,
    steps_per_epoch: int | None = None,
    max_minutes: float | None = None,
    patience: int | None = None,
    learning_rate: float = LEARNING_RATE,
    weight_decay: float = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    standardize: bool | str = True,
    standardize_context: bool = True,
    support: Any = None,
    as_is: Any = (),
    dequantize: Any = None,
    ema: float | None = EMA,
    accumulate: int = 1,
    products: str | None = None,
    remat: bool = False,
    checkpoint: Any = None,
    checkpoint_every: float = 10.0,
    callbacks: Any = (),
    verbose: int = 1,
) -> EnsembleResult:
    """Fit several models to the same data at once, each from an init and with batches of its own.

    log p(x) = logsumexp_m log p_m(x) - log members. All members train in one compiled program on the same training rows,
    and each keeps the params that were best on the same held-out rows; the fit ends when none has become better for
    `patience` epochs. The spread of `log_pdfs` over members is large where the data said little.

    Args:
        members: how many.
        member: the model of one, as a constructor's value.
        path: where the mixture of the members is in params.
        rng, init_fun, data and all others: as of `flows.fit`.

    Returns:
        An `EnsembleResult`, which unpacks as `params, log_pdf, sample`, and has `.log_pdfs(params, inputs)`.

    Errors:
        As of `flows.fit`; an error in one member says which.

    Source:
        Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
        2017, arXiv:1612.01474.

    Example:
        >>> import flows, jax
        >>> data = jax.random.normal(jax.random.key(0), (200, 2))
        >>> result = flows.fit_ensemble(0, flows.Flow(flows.ActNorm()), data, members=3, max_epochs=2, verbose=0)
        >>> result.log_pdfs(result.params, data[:5]).shape
        (3, 5)
    """
    options, key = EnsembleOptions.of(locals()), as_key(rng)
    check_distribution(init_fun, options.caller)
    rows, model = ready(data, options, key, init_fun)
    return fit_members(key, model, rows, options)


def fit_members(key: Array, model: Any, rows: Prepared, options: EnsembleOptions) -> EnsembleResult:
    """Fit an ensemble to rows that are ready, and give it as the user sees it."""

    def mixed(components: Any) -> Any:
        dtype = next((leaf.dtype for leaf in jax.tree.leaves(components)), jnp.float32)
        return {"components": components, "fixed": {"logits": jnp.full(options.members, -np.log(options.members), dtype)}}

    fitted, history = train_members(key, model, rows, options, mixed)
    flow = rows.outer(Mixture(model, num_components=options.members, trainable=False))
    params = rows.outer_params(fitted, mixed)
    functions = publish(part_of(flow, key, rows.event, rows.context), params)
    dims = as_dim(rows.event), as_dim(rows.context)
    return EnsembleResult(
        params, *functions, flow, *dims, history, members=options.members, member=rows.outer(model), path=rows.path
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _of_members(of_one: Callable, path: tuple[str, ...], members: int, params: Any, inputs: Array, context: Any) -> Array:
    def of_member(own: Any) -> Array:
        return of_one(_with(params, path, own), inputs, context=context)

    return jax.vmap(of_member, axis_size=members)(reduce(getitem, (*path, "components"), params))


def _with(params: Any, path: tuple[str, ...], new: Any) -> Any:
    """`params` with `new` at `path`."""
    return new if not path else {**params, path[0]: _with(params[path[0]], path[1:], new)}
