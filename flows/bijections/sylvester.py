"""Sylvester maps: several ridges at once. Family: Planar, radial and Sylvester maps."""

import jax
import jax.numpy as jnp

from flows.bijections.amortised import amortised, slope_of
from flows.bijections.householder import reflections
from flows.bijections.linear import triangle
from flows.bijections.planar import dot, log_slope
from flows.core import Array, ConditionerLike, FlowsError, bijection, positive_int, soft_clip
from flows.transformers.solve import solve

BASES = ("orthogonal", "householder", "triangular")
MOST = 5.0  # of log S_ii, by a soft bound


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
        s, slope = jnp.exp(soft_clip(theta["log_s"], MOST)), slope_of(theta["p"])
        return q, triangle(theta["r"], (slope - 1) / s, lower=False), triangle(theta["s"], s, lower=False), slope

    def direct(theta, x):
        q, r, s, slope = factors(theta, x.size)
        h = jnp.tanh(dot(s, projected(q, x)) + theta["b"])
        return x + dot(dot(r, h), q), log_slope(h, slope).sum()

    def inverse(theta, y):
        q, r, s, slope = factors(theta, y.size)

        def step(known, at):
            """One entry of v = Q'x and of h; the entries after it are known, the others are 0."""
            v, h = known
            i, target, r_i, s_i, b, steep = at
            r_ii, s_ii, shift, target = r_i[i], s_i[i], dot(s_i, v) + b, target - dot(r_i, h)

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
        return y - dot(dot(r, h), q), -log_slope(h, slope).sum()

    return amortised("Sylvester", conditioner, start, direct, inverse)


def projected(q: Array, x: Array) -> Array:
    """Q'x, at most 1e33, as sums of huge terms would be inf - inf; tanh is 1 from far less on."""
    far = jax.lax.stop_gradient(jnp.clip(jnp.abs(x).max(), 1.0, 1e30))
    return jnp.clip(dot(q, x / far), -1e3, 1e3) * far
