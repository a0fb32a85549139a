"""`flows.fit_ensemble`: how far models of the same data differ."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.core import Array, FlowsError, part_of, positive_int
from flows.core.inputs import as_array, as_dim
from flows.core.publish import publish
from flows.distributions.mixture import Mixture
from flows.training.options import LEARNING_RATE, Options
from flows.training.result import FitResult
from flows.training.run import train_members


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
    init_fun: Any,
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
        As of `flows.fit`; what befalls one member names it.

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
    members = positive_int(members, "fit_ensemble: members", most=10_000)
    options = Options.of(locals(), "fit_ensemble")

    def mixed(components: Any) -> Any:
        dtype = next((leaf.dtype for leaf in jax.tree.leaves(components)), jnp.float32)
        return {"components": components, "fixed": {"logits": jnp.full(members, -np.log(members), dtype)}}

    fitted = train_members(rng, init_fun, data, options, members, mixed)
    rows = fitted.rows
    mixture = Mixture(init_fun, num_components=members, trainable=False)
    flow, params = rows.outer(mixture), rows.outer_params(fitted.params, mixed)
    functions = publish(part_of(flow, fitted.key, rows.event, rows.context), params)
    result = EnsembleResult(params, *functions, flow, as_dim(rows.event), as_dim(rows.context), fitted.history)
    one = jax.tree.map(lambda leaf: leaf[0], fitted.params)
    of_one = publish(part_of(rows.outer(init_fun), fitted.key, rows.event, rows.context), rows.outer_params(one))[0]
    result.members, result._log_pdfs = members, _of_each(of_one, rows.path, members)
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
