"""`flows.fit_ensemble`: how far models of the same data differ."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.core import Array, FlowsError, part_of, positive_int
from flows.core.contract import DistributionLike
from flows.core.inputs import as_array, as_dim, as_key
from flows.core.publish import publish
from flows.distributions.mixture import Mixture
from flows.training.fit import ready, train_members
from flows.training.options import LEARNING_RATE, Options, check_distribution
from flows.training.result import FitResult


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleOptions(Options):
    members: Annotated[int, partial(positive_int, most=10_000)] = 8
    caller: str = "fit_ensemble"


class EnsembleResult(FitResult):
    """A fitted ensemble: the mixture of its members, with equal weights, as a distribution like any other.

    Attributes:
        members: how many.
        history: as of `FitResult`, with a leading axis of members.
    """

    members: int
    _log_pdfs: Callable

    def log_pdfs(self, params: Any, inputs: Any, *, context: Any = None) -> Array:
        """log p(x) of every member, (members, batch), in nats: where they differ, the data did not say.

        Args:
            params: those of the ensemble.
            inputs: (batch, *event).
            context: as of log_pdf.
        """
        return self._log_pdfs(params, inputs, context)

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
    batch_size: int = 256,
    max_epochs: int = 100,
    steps_per_epoch: int | None = None,
    max_minutes: float | None = None,
    patience: int = 10,
    learning_rate: float = LEARNING_RATE,
    optimizer: optax.GradientTransformation | None = None,
    standardize: bool = True,
    dequantize: Any = None,
    ema: float | None = None,
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
    rows = ready(data, options, key)

    def mixed(components: Any) -> Any:
        dtype = next((leaf.dtype for leaf in jax.tree.leaves(components)), jnp.float32)
        return {"components": components, "fixed": {"logits": jnp.full(options.members, -np.log(options.members), dtype)}}

    fitted, history = train_members(key, init_fun, rows, options, mixed)
    flow = rows.outer(Mixture(init_fun, num_components=options.members, trainable=False))
    params, one = rows.outer_params(fitted, mixed), rows.outer_params(jax.tree.map(lambda leaf: leaf[0], fitted))
    functions, of_one = (
        publish(part_of(model, key, rows.event, rows.context), own)
        for model, own in ((flow, params), (rows.outer(init_fun), one))
    )
    result = EnsembleResult(params, *functions, flow, as_dim(rows.event), as_dim(rows.context), history)
    result.members, result._log_pdfs = options.members, _of_each(of_one[0], rows.path, options.members)
    return result


def _of_each(log_pdf: Callable, path: tuple[str, ...], members: int) -> Callable:
    """log_pdf of every member; their stacked params are the components of the mixture at `path` in those of the ensemble."""

    @jax.jit
    def log_pdfs(params: Any, inputs: Array, context: Any) -> Array:
        mixture = params
        for name in path:
            mixture = mixture[name]

        def of_member(own: Any) -> Array:
            return log_pdf(_with(params, path, own), inputs, context=context)

        return jax.vmap(of_member, axis_size=members)(mixture["components"])

    def checked(params: Any, inputs: Any, context: Any) -> Array:
        node = params
        for name in (*path, "components"):
            if not isinstance(node, dict) or name not in node:
                raise FlowsError(
                    "log_pdfs: params are not those of this ensemble; give result.params, or what you made of them"
                )
            node = node[name]
        return log_pdfs(params, as_array(inputs, "inputs"), None if context is None else as_array(context, "context"))

    return checked


def _with(params: Any, path: tuple[str, ...], new: Any) -> Any:
    """`params` with `new` at `path`."""
    return new if not path else {**params, path[0]: _with(params[path[0]], path[1:], new)}
