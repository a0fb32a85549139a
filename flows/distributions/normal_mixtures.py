"""Mixtures of normals: with given parameters, fitted, or around the rows of the data. Family: Mixtures and kernels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import ndtr, ndtri

from flows.core import LOG_2PI, Array, Cdf, FlowsError, Numbers, Shape, Traits, distribution, in_pieces, numbers, positive_int
from flows.distributions.cdf import weighted
from flows.distributions.mixture import logsumexp
from flows.distributions.normal import honest_far_out
from flows.distributions.seeding import fitted_normals

LEFT_OUT = 500  # at most, rows by which bandwidths are chosen
STEPS, RATE = 100, 0.05
LEAST = 1e-4  # of a standard deviation: the least bandwidth, as for repeated rows the likeliest is 0


def _cdf(arguments: Any, context: Shape | None) -> Cdf:
    def normals(params: Any) -> tuple[Array, Array]:
        leaves = params.get("fixed", params)
        log_scale = leaves["log_scale"] if "log_scale" in leaves else leaves["tril"][:, 0]
        return leaves["mean"], jnp.exp(log_scale)

    def tails(params: Any, x: Array, context: Any, upper: Array, known: Any) -> Array:
        mean, scale = normals(params)
        return ndtr(jnp.where(upper, -1, 1)[None] * (x[None] - mean) / scale)

    def points(params: Any, u: Array, context: Any, upper: Array, known: Any) -> Array:
        mean, scale = normals(params)
        return mean + scale * (jnp.where(upper, -1, 1) * ndtri(u))[None]

    return weighted(lambda params: jax.nn.softmax(params.get("fixed", params)["logits"]), tails, points)


def _traits(covariance: str, **_: Any) -> Traits:
    """Traits of a mixture: with diagonal covariances it finds clusters along columns alone."""
    return Traits(picks=True, clusters="along columns" if covariance == "diagonal" else "anywhere")


@distribution(batched=True, cdf=_cdf, traits=_traits)
def GMM(
    means: Numbers | None = None,
    covariances: Numbers | None = None,
    weights: Numbers | None = None,
    trainable: bool | None = None,
    num_components: int | None = None,
    covariance: str = "full",
):
    """A mixture of normals: with given parameters, as scikit-learn's `GaussianMixture` has them, or fitted to data at init.

    log p(x) = logsumexp_k(log w_k + log N(x; m_k, C_k)), in nats. `GMM(num_components=3)` starts at the result of
    expectation-maximisation on `init_inputs`, from means that lie far apart (the likeliest of four starts, where there are ten
    rows for each column of a component). Covariances are shrunk a little towards the pooled one, which keeps components from
    shrinking onto a few rows. Without `init_inputs` it starts at standard normals around draws of one. Training goes on from
    there.

    Args:
        means: (components, d).
        covariances: (components, d, d), symmetric and positive definite.
        weights: (components,), positive with sum 1.
        trainable: train means, covariances and weights; by default True with num_components, and False otherwise.
        num_components: the number of components, instead of means, covariances and weights.
        covariance: "full" or "diagonal"; the second only with num_components.

    Params:
        mean: (components, d); tril: (components, d, d), the Cholesky factors C = L L', with the logarithm of their diagonal on
        the diagonal; or log_scale: (components, d), the logarithm of standard deviations; logits: (components,). Under "fixed"
        unless trainable.

    Errors:
        FlowsError: shapes that do not fit, covariances that are not positive definite, weights that do not sum to 1, or an
            event that is not (d,); an unknown covariance. TypeError: both num_components and means, or neither.

    Source:
        Dempster, Laird and Rubin, "Maximum Likelihood from Incomplete Data via the EM Algorithm", 1977, section 4.3; Arthur and
        Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007; Biernacki, Celeux and Govaert, "Choosing
        Starting Values for the EM Algorithm", 2003; Friedman, "Regularized Discriminant Analysis", 1989, equation 6, for the
        pooled covariance.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.GMM([[-2.0], [2.0]], [[[1.0]], [[1.0]]], [0.5, 0.5])
        >>> params, log_pdf, sample = init_fun(0, 1)
        >>> log_pdf(params, jnp.zeros((1, 1))).round(4).tolist()
        [-2.918...]
        >>> x = jnp.concatenate([flows.Normal()(0, 2).sample(1, {}, 200), 9.0 + flows.Normal()(0, 2).sample(2, {}, 200)])
        >>> params, log_pdf, sample = flows.GMM(num_components=2)(0, 2, init_inputs=x)
        >>> sorted(params["mean"].mean(1).round().tolist())
        [0.0, 9.0]
    """
    parameters = {"means": means, "covariances": covariances, "weights": weights}
    if (num_components is None) == any(value is None for value in parameters.values()):
        raise TypeError("GMM: expected means, covariances and weights, or num_components alone")
    if num_components is not None and any(value is not None for value in parameters.values()):
        raise TypeError("GMM: num_components was given with means, covariances or weights; leave it out, or all of them")
    if covariance not in ("full", "diagonal") or (covariance != "full" and num_components is None):
        raise FlowsError(f"GMM: covariance is {covariance!r:.60}; expected 'full', or 'diagonal' with num_components")
    trains = num_components is not None if trainable is None else trainable
    diagonal = covariance == "diagonal"
    start: dict[str, np.ndarray] = {}
    if num_components is None:
        start = _mixture_params(*(numbers(value, f"GMM: {name}") for name, value in parameters.items()))
    count = 0 if num_components is None else positive_int(num_components, "GMM: num_components", most=10_000)

    def fitted(rng, shape, init_inputs=None):
        if len(shape) != 1:
            raise FlowsError(f"GMM: the event is {shape}; expected a vector, such as input_dim=5")
        (d,) = shape
        if init_inputs is None:
            mean, factors, logits = jax.random.normal(rng, (count, d)), jnp.zeros((count, d, d)), jnp.zeros(count)
        else:
            weights, mean, factors = fitted_normals(rng, init_inputs, count, diagonal)
            scale = jnp.log(jnp.diagonal(factors, axis1=1, axis2=2))
            logits, factors = jnp.log(weights), jnp.tril(factors, -1) + scale[:, :, None] * jnp.eye(d)[None]
        params = {"mean": mean, "tril": factors, "logits": logits}
        if diagonal:
            params["log_scale"] = jnp.diagonal(params.pop("tril"), axis1=1, axis2=2)
        return params if trains else {"fixed": params}, log_pdf, sample

    def init_fun(rng, shape):
        if shape != start["mean"].shape[1:]:
            d = start["mean"].shape[1]
            raise FlowsError(f"GMM: the event is {shape}, but the means have {d} columns; use input_dim={d}")
        params = {name: jnp.asarray(value, float) for name, value in start.items()}
        return params if trains else {"fixed": params}, log_pdf, sample

    def log_pdf(params, x):
        mean, tril, logits = parts(params)
        # The inverses and a product: a solve for the whole batch is slow on CPUs.
        inverse = solve_triangular(tril, jnp.broadcast_to(jnp.eye(x.shape[1], dtype=tril.dtype), tril.shape), lower=True)

        def finite(x: Array) -> Array:
            centred = x.T[None] - mean[:, :, None]  # (components, d, batch)
            z = jnp.matmul(inverse, centred, precision="highest")
            log_det = jnp.log(jnp.diagonal(tril, axis1=1, axis2=2)).sum(1)
            log_normal = -0.5 * (jnp.square(z) + LOG_2PI).sum(1) - log_det[:, None]
            return logsumexp(log_normal + jax.nn.log_softmax(logits)[:, None])

        return honest_far_out(finite, x)

    def sample(rng, params, num_samples):
        mean, tril, logits = parts(params)
        which, noise = jax.random.split(rng)
        component = jax.random.categorical(which, logits, shape=(num_samples,))
        z = jax.random.normal(noise, (num_samples, mean.shape[1]), mean.dtype)
        return mean[component] + jnp.einsum("nij,nj->ni", tril[component], z, precision="highest")

    def parts(params):
        leaves = params if trains else params["fixed"]
        log_scale = leaves["log_scale"] if diagonal else jnp.diagonal(leaves["tril"], axis1=1, axis2=2)
        eye = jnp.eye(log_scale.shape[1], dtype=log_scale.dtype)
        factors = jnp.exp(log_scale)[:, :, None] * eye[None]
        return leaves["mean"], factors if diagonal else factors + jnp.tril(leaves["tril"], -1), leaves["logits"]

    return init_fun if num_components is None else fitted


def _mixture_params(means: np.ndarray, covariances: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    if means.ndim != 2 or covariances.shape != (*means.shape, means.shape[1]) or weights.shape != means.shape[:1]:
        raise FlowsError(
            f"GMM: means {means.shape}, covariances {covariances.shape} and weights {weights.shape} do not fit; expected "
            "(components, d), (components, d, d) and (components,), as of GaussianMixture(covariance_type='full')"
        )
    if not (weights > 0).all() or abs(weights.sum() - 1) > 1e-4:
        raise FlowsError(f"GMM: the weights are {weights.tolist()}; expected positive numbers with sum 1")
    if (np.abs(covariances - covariances.transpose(0, 2, 1)).max((1, 2)) > 1e-4 * np.abs(covariances).max((1, 2))).any():
        raise FlowsError("GMM: a covariance is not symmetric")
    try:
        tril = np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        raise FlowsError("GMM: a covariance is not positive definite; add a little to its diagonal") from None
    log_diagonal = np.log(np.diagonal(tril, axis1=1, axis2=2))
    tril = np.tril(tril, -1) + log_diagonal[:, :, None] * np.eye(means.shape[1])
    return {"mean": means, "tril": tril, "logits": np.log(weights)}


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
