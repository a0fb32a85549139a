"""Residual blocks: the identity and a network that contracts. Family: Residual and continuous."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from flows.bijections.engine import conditioned
from flows.bijections.from_function import newton
from flows.conditioners.base import check_conditioner, check_lipschitz
from flows.conditioners.lipschitz import Lipschitz
from flows.conditioners.network import running
from flows.core import Array, ConditionerLike, FlowsError, Layer, bijection, varying

LOG_DETS = ("exact", "unbiased")
FEW = 16  # entries up to which the inverse begins with Newton's method, which solves with Jacobians
SURE = 2  # terms of the series that are always taken
LARGEST = 0.999  # bound with which the series may be drawn: about 700 terms
NUMBERS = 2**24  # of Jacobians that are computed at once


@bijection(batched=True, likelihood=lambda log_det, **_: log_det)
def ResidualBlock(conditioner: ConditionerLike | None = None, log_det: str = "exact"):
    """The identity and a network that contracts: y = x + g(x), log|det J| = log det(1 + dg/dx).

    Lip(g) < 1 makes it a bijection. "exact": the Jacobian is built by d forward derivatives, and its determinant costs d^3.
    "unbiased": the same without `rng`; with it, a draw of the power series tr(J) - tr(J^2) / 2 + tr(J^3) / 3 - ..., with
    v'J^k v for the traces, where v are random signs. Two terms are always taken, each further one with probability Lip(g)^1.5,
    and divided by the probability that it is taken (Russian roulette). The gradient is unbiased as well: it takes one Neumann
    product v'(1 + J)^-1 and one derivative, so that the loop stores nothing. Derivatives of this gradient are biased: take
    second derivatives without `rng`. All rows share the number of terms.

    The inverse is the limit of x <- y - g(x), which converges at the rate Lip(g); with up to 16 entries it starts where
    Newton's method ends. Its derivatives come from the implicit function theorem. A row that is not solved is NaN.

    Args:
        conditioner: `net(rng, d, d)` with a Lipschitz constant below 1, such as `conditioners.Lipschitz(64, 64)`, the default,
            or your network that declares it: `flows.conditioner(lipschitz=0.9)`.
        log_det: "exact" or "unbiased", which is also the label of the density.

    Params:
        The params of the network.

    Cost:
        Direct: d derivatives of the network and O(d^3); with rng some 10 products with its Jacobian. Inverse: 10 to 100 passes.

    Errors:
        FlowsError: a network without a Lipschitz constant below 1, or with one above 0.999 where the series is drawn; an
            unknown log_det; an event of several axes.

    Source:
        Behrmann, Grathwohl, Chen, Duvenaud and Jacobsen, "Invertible Residual Networks", 2019, arXiv:1811.00995, theorem 1 and
        algorithm 1; Chen, Behrmann, Duvenaud and Jacobsen, "Residual Flows for Invertible Generative Modeling", 2019,
        arXiv:1906.02735, sections 3.1 and 3.2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.ResidualBlock()(0, 3)
        >>> y, log_det = direct_fun(params, jnp.ones((2, 3)))
        >>> inverse_fun(params, y)[0].round(5).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    net = Lipschitz(64, 64) if conditioner is None else check_conditioner(conditioner, "ResidualBlock")
    bound = check_lipschitz(getattr(net, "lipschitz", None), f"ResidualBlock: {net!r:.60}")
    if bound is None or not bound < 1:
        raise FlowsError(
            f"ResidualBlock: {net!r:.80} has a Lipschitz constant of {bound}; expected one below 1, by a certificate: use "
            "conditioners.Lipschitz(64, 64), or declare it for your network with flows.conditioner(lipschitz=0.9)"
        )
    if log_det not in LOG_DETS:
        raise FlowsError(f"ResidualBlock: log_det is {log_det!r:.60}; expected one of {', '.join(map(repr, LOG_DETS))}")
    if log_det == "unbiased" and bound > LARGEST:
        raise FlowsError(
            f"ResidualBlock: the series of a Lipschitz constant of {bound} is too long; expected at most {LARGEST}"
        )

    def make(key, shape, context, args):
        if len(shape) != 1:
            raise FlowsError(f"ResidualBlock: the event is {shape}; expected a vector, such as input_dim=5")
        (d,) = shape
        start, network = running(net, key, shape, shape, context, args)
        if network.keywords:
            named = ", ".join(sorted(network.keywords))
            raise FlowsError(f"ResidualBlock: {net!r:.80} names {named}, so its constant is not certain")

        def g_of(params: Any, context: Any) -> Callable:
            """The network of a batch (batch, d), or of one event (d,) with its context."""

            def g(x: Array) -> Array:
                if x.ndim == 1:
                    return network.run(params, x[:, None], None if context is None else context[None])[:, 0]
                return network.run(params, x.T, context).T

            return g

        def exact(params, x, context):
            g = g_of(params, context)
            y, push = jax.linearize(g, x)
            unit = jnp.broadcast_to(jnp.eye(d, dtype=x.dtype)[:, None], (d, *x.shape))
            jacobian = jnp.moveaxis(jax.vmap(push)(unit), 0, 2)
            return x + y, jnp.linalg.slogdet(jacobian + jnp.eye(d, dtype=x.dtype)[None])[1]

        def exact_in_pieces(params, x, context):
            most = max(1, NUMBERS // d**2)
            if not isinstance(x.shape[0], int) or x.shape[0] <= most:
                return exact(params, x, context)

            def one(row):
                rows = jax.tree.map(lambda leaf: leaf[None], row)
                return jax.tree.map(lambda leaf: leaf[0], exact(params, *rows))

            return lax.map(one, (x, context), batch_size=most)

        def direct(params, x, context=None, rng=None):
            if rng is None or log_det == "exact":
                return exact_in_pieces(params, x, context)
            g, held = g_of(params, context), g_of(*lax.stop_gradient((params, context)))
            return x + g(x), drawn_log_det(rng, g, held, x, float(bound))

        def inverse(params, y, context=None):
            def near(y, context):
                return newton(lambda p, x, c: x + g_of(p, c)(x), *held((params, y, context)), shape, plain=False)

            held = lax.stop_gradient
            start = jax.vmap(near)(y, context) if d <= FEW else y
            return fixed_point(g_of(params, context), y, float(bound), held(jnp.where(jnp.isnan(start), y, start)))

        return Layer(start, direct, inverse, keywords=("context", "rng") if log_det == "unbiased" else ("context",))

    return conditioned(net, make)


def drawn_log_det(key: Array, g: Callable, held: Callable, x: Array, bound: float) -> Array:
    """A draw of log det(1 + dg/dx) of each row, unbiased in its value and in its gradients; `held` is g without gradients."""
    sign_key, terms_key = jax.random.split(key)
    v = jax.random.rademacher(sign_key, x.shape, x.dtype)
    goes_on = max(0.5, bound**1.5)  # above bound^2, so that the weights of late terms do not outgrow them
    terms = SURE + jnp.floor(log_uniform(terms_key, x.dtype) / math.log(goes_on)).astype(int)
    pull = jax.vjp(held, lax.stop_gradient(x))[1]

    def add(k: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        value, product, term = state
        (term,) = pull(term)  # v'J^k
        sign, late = 1 - 2 * (k % 2), jnp.maximum(k - SURE, 0)
        weight = sign * jnp.asarray(goes_on, x.dtype) ** -late
        return value - weight / k * (term * v).sum(1), product + weight * term, term

    state = varying((jnp.zeros(x.shape[0], x.dtype), v, v), (x, pull(v)))
    value, product, _ = lax.fori_loop(1, terms + 1, add, state)
    # log det(1 + J) has the gradient of v'(1 + J)^-1 J v in the last J.
    slope = (product * jax.jvp(g, (x,), (v,))[1]).sum(1)
    return value + slope - lax.stop_gradient(slope)


def log_uniform(key: Array, dtype: Any) -> Array:
    """The logarithm of a uniform number of (0, 1]; below the least number of the generator, a second number refines it."""
    first, second = 1 - jax.random.uniform(key, (2,), dtype)
    return jnp.log(jnp.where(first <= float(jnp.finfo(dtype).eps), first * second, first))


def fixed_point(g: Callable, y: Array, bound: float, start: Array) -> Array:
    """The x with x + g(x) = y of each row, by x <- y - g(x) from a start, with the derivatives of the implicit function in both
    modes; NaN where it does not converge."""
    eps = float(jnp.finfo(y.dtype).eps)
    most = 20 + int(2 * math.log(eps) / math.log(max(bound, 0.1)))

    def iterate(step: Callable, start: Array) -> Array:
        """Repeat `step` from the start, for each row until it no longer changes."""

        def go(state: tuple) -> tuple:
            x, moving, count = state
            new = jnp.where(moving[:, None], step(x), x)
            size = jnp.abs(x).max(1) + jnp.abs(start).max(1)
            return new, moving & (jnp.abs(new - x).max(1) > 2 * eps * size), count + 1

        x, moving = varying((start, jnp.ones(start.shape[0], bool)), (start, step(start)))
        return lax.while_loop(lambda state: state[1].any() & (state[2] < most), go, (x, moving, jnp.int32(0)))[0]

    def neumann(f: Callable, b: Array) -> Array:
        return iterate(lambda x: x + b - f(x), b)

    x = lax.custom_root(
        lambda x: x + g(x) - y,
        start,
        lambda f, start: iterate(lambda x: x - f(x), start),
        lambda f, b: lax.custom_linear_solve(f, b, neumann, neumann),
    )
    missed = jnp.abs(x + g(x) - y).max(1) > 100 * eps * (jnp.abs(x).max(1) + jnp.abs(y).max(1))
    return jnp.where((missed | jnp.isnan(y).any(1))[:, None], jnp.nan, x)
