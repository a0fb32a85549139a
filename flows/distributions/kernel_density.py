"""A kernel density estimate: normals around the rows of the data themselves. Family: Mixtures and kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flows.core import LOG_2PI, Array, FlowsError, Traits, distribution, in_pieces, positive_int
from flows.distributions.infinities import honest_far_out

LEFT_OUT = 500  # at most, rows by which bandwidths are chosen
STEPS, RATE = 100, 0.05
LEAST = 1e-4  # of a standard deviation: the least bandwidth, as for repeated rows the likeliest is 0


@distribution(batched=True, traits=Traits(picks=True))
def KernelDensity(num_points: int = 2_000):
    """Normals around rows of the data, with one bandwidth a column: log p(x) = logsumexp_i(log w_i + log N(x; p_i, diag(h^2))).

    In nats. The points p_i are rows of `init_inputs`, num_points of them drawn at random if there are more. The bandwidths h
    maximise the likelihood of each row given all others (leave one out), by gradient steps from Silverman's rule. Nothing
    trains. The params, and so a saved model, hold rows of the data: `flows.describe` says how many.

    Args:
        num_points: the number of points. If there are fewer rows, the rest have weight 0.

    Params:
        "fixed": points (num_points, d), log_weights (num_points,) and log_bandwidth (d,). Without `init_inputs` the points are
        draws of a standard normal.

    Errors:
        FlowsError: num_points that is not a whole number above 0, or an event of several axes.

    Source:
        Silverman, "Density Estimation for Statistics and Data Analysis", 1986, equation 4.14; Habbema, Hermans and van den
        Broek, "A Stepwise Discriminant Analysis Program Using Density Estimation", 1974, for leaving one out.

    Example:
        >>> import flows, jax
        >>> x = jax.random.normal(jax.random.key(0), (500, 1))
        >>> params, log_pdf, sample = flows.KernelDensity()(0, 1, init_inputs=x)
        >>> abs(float(log_pdf(params, x * 0)[0]) + 0.92) < 0.15, sample(1, params, 3).shape      # log N(0; 0, 1) = -0.92
        (True, (3, 1))
    """
    num_points = positive_int(num_points, "KernelDensity: num_points", most=1_000_000)

    def init_fun(rng, shape, init_inputs=None):
        if len(shape) != 1:
            raise FlowsError(f"KernelDensity: the event is {shape}; expected a vector, such as input_dim=5")
        normal_key, order_key = jax.random.split(rng)
        x = jax.random.normal(normal_key, (num_points, *shape)) if init_inputs is None else init_inputs
        n, d = x.shape
        count = min(n, num_points)
        points = jax.random.permutation(order_key, x)[:count]
        std = points.std(0)
        std = jnp.where(std > 0, std, 1.0)
        z = (points - points.mean(0)[None]) / std[None]
        start = jnp.full(d, np.log(4 / ((d + 2) * count)) / (d + 4), z.dtype)
        log_bandwidth = start if count < 3 else _most_likely(z, start)
        fixed = {
            "points": jnp.pad(points, ((0, num_points - count), (0, 0))),
            "log_weights": jnp.where(np.arange(num_points) < count, -np.log(count), -jnp.inf).astype(z.dtype),
            "log_bandwidth": log_bandwidth + jnp.log(std),
        }
        return {"fixed": fixed}, log_pdf, sample

    def log_pdf(params, x):
        fixed = params["fixed"]

        def log_density(fixed: dict[str, Array], x: Array) -> Array:
            def finite(x: Array) -> Array:
                terms = fixed["log_weights"][None] - 0.5 * _distances(x, fixed["points"], fixed["log_bandwidth"])
                return jax.nn.logsumexp(terms, axis=1) - fixed["log_bandwidth"].sum() - 0.5 * LOG_2PI * x.shape[1]

            return honest_far_out(finite, x)

        return in_pieces(log_density, fixed, x)

    def sample(rng, params, num_samples):
        fixed = params["fixed"]
        which, noise = jax.random.split(rng)
        point = jax.random.categorical(which, fixed["log_weights"], shape=(num_samples,))
        z = jax.random.normal(noise, (num_samples, fixed["points"].shape[1]), fixed["points"].dtype)
        return fixed["points"][point] + jnp.exp(fixed["log_bandwidth"])[None] * z

    return init_fun


def _distances(x: Array, points: Array, log_bandwidth: Array) -> Array:
    """Squared distances (rows, points) in bandwidths; by a matrix product, of centred numbers to keep its digits."""
    centre, scale = points.mean(0)[None], jnp.exp(-log_bandwidth)[None]
    a, b = (x - centre) * scale, (points - centre) * scale
    product = jnp.matmul(a, b.T, precision="highest")
    return jnp.maximum(jnp.square(a).sum(1)[:, None] + jnp.square(b).sum(1)[None] - 2 * product, 0)


def _most_likely(z: Array, start: Array) -> Array:
    """The log bandwidths that maximise the likelihood of some of the points, each given all others."""
    few = z[:LEFT_OUT]
    itself = jnp.arange(len(few))[:, None] == jnp.arange(len(z))[None]

    def loss(log_bandwidth: Array) -> Array:
        terms = jnp.where(itself, -jnp.inf, -0.5 * _distances(few, z, log_bandwidth))
        return log_bandwidth.sum() - jax.nn.logsumexp(terms, axis=1).mean()

    optimizer = optax.adam(RATE)

    def step(carry: tuple, _: None) -> tuple:
        log_bandwidth, state = carry
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(jax.grad(loss)(log_bandwidth), state)
        new = jnp.maximum(log_bandwidth + updates, np.log(LEAST))
        return (jnp.where(jnp.isfinite(new), new, log_bandwidth), state), None

    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(start)
    return jax.lax.scan(step, (start, state), None, length=STEPS)[0][0]
