"""Flow matching: the velocity of a continuous flow by regression, without solving anything."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.core import Array, FlowsError, as_key, joint_draw_of, path_of_log_pdf
from flows.distributions.draws import functions
from flows.objectives.losses import mean_of_rows

PAIRINGS = (None, "optimal transport")
GROUP = 64  # rows that are paired together: the time of a pairing grows with their cube


def flow_matching(
    params: Any,
    distribution: Any,
    x: Any,
    *,
    rng: Any,
    context: Any = None,
    weights: Any = None,
    pairing: str | None = None,
    train: bool = False,
) -> Array:
    """The mean squared error of the velocity of a continuous flow, on straight ways from noise to data.

    x_t = (1 - t) x_0 + t x, with x_0 drawn from the base and t uniform in [0, 1], and the loss is the mean over rows of
    |v(x_t, t) - (x - x_0)|^2. Its minimum is the velocity of a flow from the base to the data; what is left there is the
    variance of x - x_0 given x_t, so the value alone says little, and is not in nats.

    It trains the velocity of the one `Continuous` of a `Flow`, which is the last before the base. Layers before it are run, and
    must not train: `Standardize`, `Whiten`, `Dequantize`, `Logit` and their like. In `flows.fit` it is
    `objective=flows.objectives.flow_matching`, with pairs `functools.partial(flow_matching, pairing="optimal transport")`.

    Args:
        params: of the distribution, what is trained.
        distribution: its triple `(params, log_pdf, sample)`.
        x: data, (batch, *event).
        rng: key or seed, for times, noise and what layers before the flow draw.
        context: as log_pdf takes it.
        weights: (batch,), not negative, in any unit; by default all rows count alike.
        pairing: None, or "optimal transport": within groups of 64 rows noise is assigned to data so that the squared distances
            have the least sum, which makes ways straighter.
        train: changes nothing; `fit` gives it.

    Returns:
        A scalar.

    Errors:
        TypeError: not the triple of a distribution. FlowsError: a distribution without a continuous layer before its base, or
            with layers before it, or a base, that train, or of codes; no rows; an unknown pairing; pairs with a context or
            weights, on which noise would then depend.

    Source:
        Lipman, Chen, Ben-Hamu, Nickel and Le, "Flow Matching for Generative Modeling", 2023, arXiv:2210.02747; pairs: Tong et
        al., "Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport", 2024, arXiv:2302.00482;
        pairs with a context: arXiv:2503.10636.

    Example:
        >>> import flows, jax, jax.numpy as jnp
        >>> distribution = flows.Flow(flows.Continuous(flows.MLP(16), steps=4))(0, 2)
        >>> x = 2.0 + jax.random.normal(jax.random.key(0), (1000, 2))
        >>> loss = flows.objectives.flow_matching(distribution.params, distribution, x, rng=1)  # v is near 0 at the start
        >>> round(float(loss))                                                                  # 2 (1 + 1 + 2^2)
        12
    """
    log_pdf, sample = functions("flow_matching", distribution)
    path = path_of_log_pdf(log_pdf)
    if (known := joint_draw_of(sample)) is not None and known.region is not None and np.any(known.region.discrete):
        raise FlowsError(
            f"flow_matching: the distribution has {known.region.words.noun}, to which there is no way from noise; fit it by "
            "likelihood, or give a flow of the numbers, with the codes as its context"
        )
    if path is None:
        raise FlowsError(
            "flow_matching: the distribution has no continuous layer, or hides it in a loop; expected a flow such as "
            "flows.Flow(flows.Continuous())"
        )
    if pairing not in PAIRINGS:
        raise FlowsError(f"flow_matching: pairing is {pairing!r:.60}; expected None or 'optimal transport'")
    if pairing is not None and (context is not None or weights is not None):
        raise FlowsError(
            f"flow_matching: pairing={pairing!r} with {'a context' if context is not None else 'weights'}: noise would depend "
            "on it; leave pairing out"
        )
    layer_key, noise_key, time_key = jax.random.split(as_key(rng), 3)
    end, velocity, draw = path(params, x, context, layer_key)
    n = end.shape[0]
    if n == 0:
        raise FlowsError("flow_matching: x has no rows; expected at least one")
    start = draw(noise_key)
    if pairing is not None:
        start = paired(start, end)
    # One time in each n-th of [0, 1], in the order of the rows, which is a random one: less variance than of independent times.
    t = (jax.random.uniform(time_key, (), end.dtype) + jnp.arange(n, dtype=end.dtype)) / n
    wide = t.reshape(-1, *(1,) * (end.ndim - 1))
    error = velocity(t, (1 - wide) * start + wide * end) - (end - start)
    squares = jnp.square(error).sum(tuple(range(1, end.ndim)))
    return mean_of_rows("flow_matching", squares, weights)


def paired(start: Array, end: Array) -> Array:
    """Rows of noise in an order in which each group is assigned to its rows of data at the least cost."""

    def assigned(start: Array, end: Array) -> Array:
        a, b = end.reshape(len(end), -1), start.reshape(len(start), -1)
        cost = jnp.square(a[:, None] - b[None]).sum(2)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            rows, columns = optax.assignment.hungarian_algorithm(jax.lax.stop_gradient(cost))
        return start[columns[jnp.argsort(rows)]]

    n, whole = len(end), len(end) // GROUP * GROUP
    groups = [points[:whole].reshape(-1, GROUP, *points.shape[1:]) for points in (start, end)]
    pieces = [jax.lax.map(lambda pair: assigned(*pair), tuple(groups)).reshape(whole, *start.shape[1:])] if whole else []
    if n > whole:
        pieces.append(assigned(start[whole:], end[whole:]))
    return jnp.concatenate(pieces)
