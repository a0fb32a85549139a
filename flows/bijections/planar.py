"""Maps along one direction, around one point, or along several directions, of which `amortised` makes layers of vectors.

Parameters are trained, plus the output of a network of the context, if there is one.
Family: Planar, radial and Sylvester maps."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.engine import conditioned
from flows.bijections.linear import product, reflections, triangle
from flows.conditioners.base import check_conditioner
from flows.conditioners.network import running
from flows.core import Array, ConditionerLike, FlowsError, Layer, bijection, positive_int, soft_clip
from flows.transformers.solve import solve

FLOOR = 1e-3  # of a slope
MOST_ALPHA = 10.0  # of log alpha
BASES = ("orthogonal", "householder", "triangular")
MOST_SCALE = 5.0  # of log S_ii, by a soft bound


def slope_of(p: Array) -> Array:
    """A slope above 0, and 1 at p = 0: log(1 + (e - 1) exp(p)), with a floor."""
    return FLOOR + (1 - FLOOR) * jax.nn.softplus(p + np.log(np.expm1(1.0)))


def bend_of(p: Array) -> Array:
    """`slope_of(p)` - 1, with all its digits near 0."""
    near = jnp.log1p((1 - np.exp(-1)) * jnp.expm1(jnp.minimum(p, 20.0)))
    return (1 - FLOOR) * jnp.where(p < 20.0, near, jax.nn.softplus(p + np.log(np.expm1(1.0))) - 1)


def amortised(name: str, conditioner: ConditionerLike | None, start: Callable, direct: Callable, inverse: Callable) -> Callable:
    """The init_fun of a layer, of batches: `start(rng, d)` returns a dict of parameter arrays, `direct(theta, x)` and
    `inverse(theta, y)` return one event and its log-det."""
    net: Any = None if conditioner is None else check_conditioner(conditioner, name)

    def started(rng: Array, shape: tuple[int, ...]) -> dict[str, Array]:
        if len(shape) != 1:
            raise FlowsError(f"{name}: the event is {shape}; expected a vector, such as input_dim=5")
        return start(rng, shape[0])

    def layer(params: Any, direct: Callable, pair: Callable, keywords: Iterable[str] = ()) -> Layer:
        return Layer(params, direct, lambda params, y, **call: pair(params, y, **call)[0], pair, keywords=keywords)

    def trained_init(rng, shape):
        return layer(started(rng, shape), jax.vmap(direct, (None, 0)), jax.vmap(inverse, (None, 0)))

    def make(key, shape, context, args):
        if context is None:
            raise FlowsError(f"{name}: a conditioner makes the parameters from a context; give context_dim to init_fun")
        keys, old = jax.random.split(key), args.params or {}
        layer_params = {key: old[key] for key in old if key != "conditioner"} or started(keys[0], shape)
        sizes = {name: layer_params[name].size for name in sorted(layer_params)}
        ends = np.cumsum(list(sizes.values()))
        args = args._replace(params=old.get("conditioner"))
        net_params, network = running(net, keys[1], (0,), (int(ends[-1]),), context, args)

        def theta_of(params, x, **call):
            """The parameters of each row: the trained ones plus the output of the network."""
            moves = network.run(params["conditioner"], x.T, **call)
            pieces = zip(sizes, jnp.split(moves.T, ends[:-1], axis=1), strict=True)
            return {name: params[name][None] + piece.reshape(-1, *params[name].shape) for name, piece in pieces}

        def direct_rows(params, x, **call):
            return jax.vmap(direct)(theta_of(params, x, **call), x)

        def pair(params, y, **call):
            return jax.vmap(inverse)(theta_of(params, y, **call), y)

        return layer({**layer_params, "conditioner": net_params}, direct_rows, pair, {"context", *network.keywords})

    return trained_init if net is None else conditioned(net, make)


@bijection(batched=True)
def Planar(conditioner: ConditionerLike | None = None):
    """A ridge along one direction: y = x + u' tanh(w.x + b), log|det J| = log(1 + w.u' (1 - tanh(w.x + b)^2)).

    u' = u + (m - w.u) w / |w|^2 has w.u' = m above -1, so that the map has an inverse; m = log(1 + (e - 1) exp(w.u)) - 1, with
    a floor of -0.999, is 0 where w.u is 0 (in the paper m = log(1 + exp(w.u)) - 1; u = 0 is then not the identity, and u'
    grows without bound as w goes to 0). The inverse is one root, of a + m tanh(a + b) = w.y in a = w.x.

    With `Invert(Planar())` draws cost one pass, as `fit_to_density` needs it.

    Args:
        conditioner: `net(rng, context_dim, 2 d + 1) -> (params, apply_fun)`, such as `MLP(32)`: its output for the context,
            which is then required, is added to the parameters below.

    Params:
        w, u: (d,), w normal with variance 1 / d and u = 0 at init, the identity; b: (), 0; "conditioner", the network's.

    Cost:
        Direct: O(d). Inverse: O(d), and one root.

    Errors:
        FlowsError: an event of several axes; a conditioner without context_dim.

    Source:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015, arXiv:1505.05770, equations 10-12 and A.1.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Planar()(0, 3)
        >>> y, log_det = direct_fun({**params, "u": jnp.ones(3)}, jnp.ones((2, 3)))
        >>> bool(abs(inverse_fun({**params, "u": jnp.ones(3)}, y)[0] - 1).max() < 1e-5)
        True
    """

    def start(rng, d):
        return {"w": jax.random.normal(rng, (d,)) / d**0.5, "u": jnp.zeros(d), "b": jnp.zeros(())}

    def ridge(theta) -> tuple[Array, Array, Array]:
        """w, u' and 1 + w.u'."""
        w, u = theta["w"], theta["u"]
        along, size = product(w, u), jax.lax.stop_gradient(jnp.abs(w).max())
        size = jnp.where(size > 0, size, 1.0)  # a w of 0 points nowhere
        unit = w / size
        square = product(unit, unit)
        more = (bend_of(along) - along) / size / jnp.where(square > 0, square, 1.0)
        return w, u + more * unit, slope_of(along)

    def direct(theta, x):
        w, u, slope = ridge(theta)
        h = jnp.tanh(product(w, x) + theta["b"])
        return x + u * h, log_slope(h, slope)

    def inverse(theta, y):
        w, u, slope = ridge(theta)
        target, b = product(w, y), theta["b"]

        def along(a):
            h = jnp.tanh(a + b)
            return a + (slope - 1) * h, log_slope(h, slope)

        reach = jnp.abs(slope - 1)
        a = solve(along, target, target - reach, target + reach)
        h = jnp.tanh(a + b)
        return y - u * h, -log_slope(h, slope)

    return amortised("Planar", conditioner, start, direct, inverse)


@bijection(batched=True)
def Radial(conditioner: ConditionerLike | None = None):
    """A map away from a point, or towards it: y = x + beta (x - x0) / (alpha + r), r = |x - x0|.

    log|det J| = (d - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2). alpha = exp(log_alpha), within
    exp(+-10), and beta / alpha = log(1 + (e - 1) exp(p)) - 1, with a floor of -0.999, is above -1, so that the map has an
    inverse: r is the root of a quadratic in |y - x0|.

    Args:
        conditioner: as in `Planar`, with d + 2 outputs.

    Params:
        center: (d,), x0, standard normal at init; log_alpha, p: (), 0, the identity; "conditioner", the network's.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an event of several axes; a conditioner without context_dim.

    Source:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015, arXiv:1505.05770, equation 14 and A.2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Radial()(0, 3)
        >>> y, log_det = direct_fun({**params, "p": jnp.array(2.0)}, jnp.ones((2, 3)))
        >>> bool(abs(inverse_fun({**params, "p": jnp.array(2.0)}, y)[0] - 1).max() < 1e-5)
        True
    """

    def start(rng, d):
        return {"center": jax.random.normal(rng, (d,)), "log_alpha": jnp.zeros(()), "p": jnp.zeros(())}

    def alpha_of(theta) -> Array:
        return jnp.exp(jnp.clip(theta["log_alpha"], -MOST_ALPHA, MOST_ALPHA))

    def factors(theta, r, d) -> tuple[Array, Array]:
        """The factor of x - x0, and log|det J|."""
        near = 1 / (1 + r / alpha_of(theta))  # alpha / (alpha + r)
        slope = slope_of(theta["p"])  # at x0
        across, outwards = (1 - near) + slope * near, (1 - near) * (1 + near) + slope * near * near
        return across, (d - 1) * jnp.log(across) + jnp.log(outwards)

    def direct(theta, x):
        away = x - theta["center"]
        factor, log_det = factors(theta, length(away), x.size)
        return theta["center"] + factor * away, log_det

    def inverse(theta, y):
        away, alpha = y - theta["center"], alpha_of(theta)
        # In units of alpha, r^2 + (slope - far) r - far = 0.
        far = length(away) / alpha
        half = 0.5 * (far - slope_of(theta["p"]))
        root = jnp.sqrt(half * half + far)
        r = jnp.where(half > 0, half + root, far / jnp.where(half > 0, 1.0, root - half))
        factor, log_det = factors(theta, alpha * r, y.size)
        return theta["center"] + away / factor, -log_det

    return amortised("Radial", conditioner, start, direct, inverse)


def log_slope(h: Array, slope: Array) -> Array:
    """log(1 + (slope - 1) (1 - h^2)), as a sum of terms that are not negative."""
    return jnp.log(h * h + slope * (1 - h) * (1 + h))


def length(x: Array) -> Array:
    """|x|, with a gradient of 0 at 0, and without squares that over- or underflow."""
    largest = jnp.abs(x).max()
    unit = jax.lax.stop_gradient(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0))
    square = jnp.square(x / unit).sum()
    return unit * jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), square)


@bijection(batched=True)
def Sylvester(rank: int = 1, basis: str = "orthogonal", conditioner: ConditionerLike | None = None):
    """Ridges along `rank` directions: y = x + Q R tanh(S Q'x + b), log|det J| = sum_i log(1 + R_ii S_ii (1 - tanh(.)_i^2)).

    Q (d, rank) has orthonormal columns, R and S are upper triangular, and R_ii S_ii is above -1, which makes the map
    invertible: S_ii = exp(log_s_i), softly bounded by exp(5); R_ii S_ii = log(1 + (e - 1) exp(p_i)) - 1, at least -0.999.
    With one direction it is `Planar`. The inverse is triangular in Q'x: `rank` roots, one after the other, from the last.

    With `Invert(Sylvester(8))` draws cost one pass, as `fit_to_density` and variational autoencoders need it.

    Args:
        rank: the number of directions, at most d.
        basis: how Q is made: "orthogonal", from a matrix by its QR decomposition; "householder", by `rank` reflections, which
            is better with a conditioner, as a matrix may come near a lower rank; "triangular": the directions are the first
            `rank` features; put `Reverse()` between such layers.
        conditioner: as in `Planar`, with as many outputs as there are numbers below.

    Params:
        r, s: (rank (rank - 1) / 2,), the strict triangles of R and S, row by row; p, log_s, b: (rank,); all 0 at init, the
        identity. basis: (d, rank) for "orthogonal", (rank, d) for "householder", normal at init. "conditioner", the network's.

    Cost:
        Direct: O(d rank), and the basis in O(d rank^2). Inverse: the same, and `rank` roots in turn.

    Errors:
        FlowsError: a rank that is not a whole number above 0, or above d; an unknown basis; an event of several axes; a
            conditioner without context_dim.

    Source:
        van den Berg, Hasenclever, Tomczak and Welling, "Sylvester Normalizing Flows for Variational Inference", 2018,
        arXiv:1803.05649, theorem 2.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Sylvester(2)(0, 3)
        >>> y, log_det = direct_fun({**params, "p": jnp.array([1.0, 2.0])}, jnp.ones((2, 3)))
        >>> bool(abs(inverse_fun({**params, "p": jnp.array([1.0, 2.0])}, y)[0] - 1).max() < 1e-5)
        True
    """
    rank = positive_int(rank, "Sylvester: rank")
    if basis not in BASES:
        raise FlowsError(f"Sylvester: basis is {basis!r:.60}; expected one of {', '.join(map(repr, BASES))}")

    def start(rng, d):
        if rank > d:
            raise FlowsError(f"Sylvester: rank is {rank}, but the event ({d},) has {d} features; expected at most {d}")
        strict, none = jnp.zeros(rank * (rank - 1) // 2), jnp.zeros(rank)
        params = {"r": strict, "s": strict, "p": none, "log_s": none, "b": none}
        if basis == "triangular":
            return params
        return {**params, "basis": jax.random.normal(rng, (d, rank) if basis == "orthogonal" else (rank, d))}

    def factors(theta, d) -> tuple[Array, Array, Array, Array]:
        """Q', R, S and 1 + R_ii S_ii."""
        if basis == "orthogonal":
            q = jnp.linalg.qr(theta["basis"])[0].T
        elif basis == "householder":
            q = reflections(theta["basis"], rank)
        else:
            q = jnp.eye(rank, d, dtype=theta["p"].dtype)
        s, slope = jnp.exp(soft_clip(theta["log_s"], MOST_SCALE)), slope_of(theta["p"])
        return q, triangle(theta["r"], (slope - 1) / s, lower=False), triangle(theta["s"], s, lower=False), slope

    def direct(theta, x):
        q, r, s, slope = factors(theta, x.size)
        h = jnp.tanh(product(s, projected(q, x)) + theta["b"])
        return x + product(product(r, h), q), log_slope(h, slope).sum()

    def inverse(theta, y):
        q, r, s, slope = factors(theta, y.size)

        def step(known, at):
            """One entry of v = Q'x and of h; the entries after it are known, the others are 0."""
            v, h = known
            i, target, r_i, s_i, b, steep = at
            r_ii, s_ii, shift, target = r_i[i], s_i[i], product(s_i, v) + b, target - product(r_i, h)

            def along(entry):
                h_i = jnp.tanh(s_ii * entry + shift)
                return entry + r_ii * h_i, log_slope(h_i, steep)

            reach = jnp.abs(r_ii)
            entry = solve(along, target, target - reach, target + reach)
            return (v.at[i].set(entry), h.at[i].set(jnp.tanh(s_ii * entry + shift))), None

        nothing = jnp.zeros(rank, y.dtype)
        (_, h), _ = jax.lax.scan(
            step, (nothing, nothing), (jnp.arange(rank), projected(q, y), r, s, theta["b"], slope), reverse=True
        )
        return y - product(product(r, h), q), -log_slope(h, slope).sum()

    return amortised("Sylvester", conditioner, start, direct, inverse)


def projected(q: Array, x: Array) -> Array:
    """Q'x, at most 1e33, as sums of huge terms would be inf - inf; tanh is 1 from far less on."""
    far = jax.lax.stop_gradient(jnp.clip(jnp.abs(x).max(), 1.0, 1e30))
    return jnp.clip(product(q, x / far), -1e3, 1e3) * far
