"""`Argmax`: codes of categories as vectors whose largest entries they name. Family: Surjections."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.surjections import conditional_part, drawing
from flows.conditioners import MLP
from flows.core import (
    Array,
    BijectionInit,
    BijectionPart,
    Composite,
    DistributionInit,
    DistributionLike,
    FlowsError,
    Region,
    Shape,
    Support,
    boolean,
    check_layers,
    combinator,
    joined_context,
    one_hot_codes,
    positive_int,
)
from flows.distributions.location_scale import Logistic

HEAVY_TAILED = Logistic(conditioner=MLP(64, 64))


def _places(num_classes: int, noise: Any, binary: bool) -> Support:
    return Support(Region(0, num_classes - 1, classes=num_classes))


@combinator(BijectionInit, likelihood="lower bound", ways=frozenset({"direct"}), support=_places)
def Argmax(num_classes: int, noise: DistributionLike = HEAVY_TAILED, binary: bool = False):
    """Codes 0 to K - 1 as vectors of K numbers, the largest of which is at the place of the code, for a flow of the line.

    x = argmax(z), for each entry of the event. z is made of a draw u ~ q(u | x) by thresholding at its entry of the code:

        z_x = T = u_x,  z_i = T - softplus(T - u_i);  log_weight = sum_{i != x} log sigmoid(T - u_i) - log q(u | x), in nats

    Binary, it takes fewer numbers, B = ceil(log2 K), whose signs are the bits of the code, z_b = +- softplus(u_b) and
    log_weight = sum_b log sigmoid(u_b) - log q(u | x). Where 2^B is more than K, K - 1 stands for all patterns from K - 1 on:
    one of these E patterns is drawn, and log_weight has log E more. So masses sum to 1.

    Args:
        num_classes: K, from 2 on, the same for all entries.
        noise: q, a distribution of the numbers that all entries take together, given the one-hot codes of all, and the context
            where there is one. Thresholding leaves exponential tails of u, which a logistic q covers and a normal one does not.
        binary: take the binary form.

    Params:
        {"noise": ...}, the params of q.

    Support:
        Inputs: codes 0 to K - 1; the log-weight of other values is -inf. In half precision outputs are too coarse to keep the
        largest entry apart from the others.

    Cost:
        Direct: a draw of q with its density. Inverse: O(d K); with its log-weight, a density of q.

    Errors:
        FlowsError: num_classes below 2, an event that is not a vector, params of another model. TypeError: noise is not a
            distribution.

    Source:
        Hoogeboom, Nielsen, Jaini, Forré and Welling, "Argmax Flows and Multinomial Diffusion", 2021, arXiv:2102.05379,
        section 3 and algorithm 1.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Argmax(3, flows.Normal())(0, 2)
        >>> z, log_weight = direct_fun(params, jnp.array([[0.0, 2.0]]), rng=1)
        >>> z.shape, inverse_fun(params, z)[0].tolist()
        ((1, 6), [[0.0, 2.0]])
    """
    k = positive_int(num_classes, "Argmax: num_classes")
    if k < 2:
        raise FlowsError("Argmax: num_classes is 1; expected 2 or more: leave a column of one category out")
    check_layers("Argmax: noise", (noise,), DistributionInit, "a distribution")
    form = _Signs(k) if boolean(binary, "Argmax: binary") else _Largest(k)

    def part(event: Shape, context: Shape | None) -> BijectionPart:
        d = event[0]
        count = d * form.width
        q, place, init = conditional_part("Argmax", "noise", noise, count, event, d * k, context, lambda x: (None, hot(x)))

        def hot(x: Array) -> Array:
            return one_hot_codes(x.T, [k] * d).T

        def weight(x: Array, u: Array, log_q: Array) -> Array:
            log_weight = jnp.where(hot(x).sum(1) == d, form.log_slope(x, u) - log_q, -jnp.inf)
            return jnp.where(jnp.isnan(x).any(1), jnp.nan, log_weight)

        def direct(params: Any, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
            noise_key, form_key = jax.random.split(rng)
            with place:
                u, log_q = q.draw(noise_key, params["noise"], x.shape[0], x.dtype, joined_context([hot(x)], context))
            u = u.reshape(*x.shape, form.width)
            return form.numbers(x, u, form_key).reshape(-1, count), weight(x, u, log_q)

        def inverse(params: Any, z: Array, context: Any, rng: Any, train: bool) -> Array:
            return form.codes(z.reshape(-1, d, form.width))

        def pair(params: Any, z: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
            z = z.reshape(-1, d, form.width)
            x = form.codes(z)
            u = form.noise(x, z)
            with place:
                log_q = q.log_pdf(params["noise"], u.reshape(-1, count), joined_context([hot(x)], context), None, train)
            return x, -weight(x, u, log_q)

        return drawing("Argmax", q, init, event, context, {"direct"}, direct, inverse, (count,), pair)

    return Composite(part, (noise,))


class _Largest:
    """Codes x (n, d) as vectors z (n, d, K), the largest entry of which is at the place of the code, by noise u."""

    def __init__(self, k: int):
        self.width = k

    def _split(self, x: Array, z: Array) -> tuple[Array, Array]:
        """Where z has the entry of the code, and this entry, (n, d, 1)."""
        at_code = x[:, :, None] == jnp.arange(self.width, dtype=x.dtype)[None, None]
        return at_code, jnp.where(at_code, z, 0).sum(2, keepdims=True)

    def numbers(self, x: Array, u: Array, key: Array) -> Array:
        at_code, top = self._split(x, u)
        return jnp.where(at_code, u, top - _softplus(top - u, top))

    def log_slope(self, x: Array, u: Array) -> Array:
        at_code, top = self._split(x, u)
        return jnp.where(at_code, 0.0, jax.nn.log_sigmoid(top - u)).sum((1, 2))

    def codes(self, z: Array) -> Array:
        return jnp.argmax(z, 2).astype(z.dtype)

    def noise(self, x: Array, z: Array) -> Array:
        at_code, top = self._split(x, z)
        return jnp.where(at_code, z, top - _softplus_inverse(top - z))


class _Signs:
    """Codes x (n, d) as the signs of numbers z (n, d, B); the last code has several patterns."""

    def __init__(self, k: int):
        self.width, self.last = math.ceil(math.log2(k)), k - 1
        self.patterns, self.powers = 2**self.width - k + 1, 2 ** np.arange(self.width).reshape(1, 1, -1)

    def numbers(self, x: Array, u: Array, key: Array) -> Array:
        pattern = jnp.where(x == self.last, jax.random.randint(key, x.shape, 0, self.patterns), 0) + x.astype(int)
        signs = jnp.where((pattern[:, :, None] // self.powers) % 2 == 1, 1.0, -1.0).astype(u.dtype)
        return signs * _softplus(u, 0.0)

    def log_slope(self, x: Array, u: Array) -> Array:
        return jax.nn.log_sigmoid(u).sum((1, 2)) + jnp.where(x == self.last, math.log(self.patterns), 0.0).sum(1)

    def codes(self, z: Array) -> Array:
        return jnp.minimum(jnp.where(z > 0, jnp.asarray(self.powers, z.dtype), 0).sum(2), self.last)

    def noise(self, x: Array, z: Array) -> Array:
        return _softplus_inverse(jnp.abs(z))


def _softplus(x: Array, near: Any) -> Array:
    """softplus(x), at least so large that rounding leaves it apart from 0 next to a number `near`."""
    return jnp.maximum(jax.nn.softplus(x), 4 * jnp.finfo(x.dtype).eps * jnp.maximum(jnp.abs(jax.lax.stop_gradient(near)), 1e-3))


def _softplus_inverse(y: Array) -> Array:
    y = jnp.maximum(y, jnp.finfo(y.dtype).tiny)
    return y + jnp.log(-jnp.expm1(-y))
