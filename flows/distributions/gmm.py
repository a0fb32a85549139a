"""Mixtures of normals, fixed or trained, as scikit-learn fits them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from flows.core import Array, FlowsError, distribution, numbers
from flows.core.contract import Numbers
from flows.core.numerics import LOG_2PI
from flows.distributions.infinities import honest_far_out, logsumexp


@distribution(batched=True)
def GMM(means: Numbers, covariances: Numbers, weights: Numbers, trainable: bool = False):
    """A mixture of normals with full covariances, as scikit-learn's `GaussianMixture` has them.

    log p(x) = logsumexp_k(log w_k + log N(x; m_k, C_k)), in nats.

    Args:
        means: (components, d).
        covariances: (components, d, d), symmetric and positive definite.
        weights: (components,), positive with sum 1.
        trainable: train all three from these values; otherwise they stay.

    Params:
        mean: (components, d); tril: (components, d, d), the Cholesky factors C = L L', with the logarithm of their diagonal on
        the diagonal; logits: (components,). Under "fixed" unless trainable.

    Errors:
        FlowsError: shapes that do not fit, covariances that are not positive definite, weights that do not sum to 1, or an
            event that is not (d,).

    Example:
        >>> import flows, jax.numpy as jnp
        >>> init_fun = flows.GMM([[-2.0], [2.0]], [[[1.0]], [[1.0]]], [0.5, 0.5])
        >>> params, log_pdf, sample = init_fun(0, 1)
        >>> log_pdf(params, jnp.zeros((1, 1))).round(4).tolist()
        [-2.918...]
    """
    given = {"means": means, "covariances": covariances, "weights": weights}
    start = _mixture_params(*(numbers(value, f"GMM: {name}") for name, value in given.items()))
    d = start["mean"].shape[1]

    def init_fun(rng, shape):
        if shape != (d,):
            raise FlowsError(f"GMM: the event is {shape}, but the means have {d} columns; use input_dim={d}")
        params = {name: jnp.asarray(value, float) for name, value in start.items()}
        return params if trainable else {"fixed": params}, log_pdf, sample

    def log_pdf(params, x):
        mean, tril, logits = parts(params)
        # The inverses and a product: a solve for the whole batch is slow on CPUs.
        inverse = solve_triangular(tril, jnp.broadcast_to(jnp.eye(d, dtype=tril.dtype), tril.shape), lower=True)

        def of_finite(x: Array) -> Array:
            centred = x.T[None] - mean[:, :, None]  # (components, d, batch)
            z = jnp.matmul(inverse, centred, precision="highest")
            log_det = jnp.log(jnp.diagonal(tril, axis1=1, axis2=2)).sum(1)
            log_normal = -0.5 * (jnp.square(z) + LOG_2PI).sum(1) - log_det[:, None]
            return logsumexp(log_normal + jax.nn.log_softmax(logits)[:, None])

        return honest_far_out(of_finite, x)

    def sample(rng, params, num_samples):
        mean, tril, logits = parts(params)
        which, noise = jax.random.split(rng)
        component = jax.random.categorical(which, logits, shape=(num_samples,))
        z = jax.random.normal(noise, (num_samples, d), mean.dtype)
        return mean[component] + jnp.einsum("nij,nj->ni", tril[component], z, precision="highest")

    def parts(params):
        own = params if trainable else params["fixed"]
        diagonal = jnp.exp(jnp.diagonal(own["tril"], axis1=1, axis2=2))
        eye = jnp.eye(d, dtype=diagonal.dtype)
        return own["mean"], jnp.tril(own["tril"], -1) + diagonal[:, :, None] * eye[None], own["logits"]

    return init_fun


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
