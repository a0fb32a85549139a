"""Objectives that training minimises: the likelihood of data, divergences from a target, a bound on its constant."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from flows.core import Array, FlowsError, as_array, as_key, check_floats, named_by, positive_int
from flows.distributions.draws import functions
from flows.objectives.importance import Problem, along, log_mean, weighted_sum


def maximum_likelihood(
    params: Any, distribution: Any, x: Any, *, context: Any = None, weights: Any = None, rng: Any = None, train: bool = False
) -> Array:
    """Minus the mean log-likelihood: -sum_i w_i log q(x_i) / sum_i w_i.

    Args:
        params: of the distribution, what is trained.
        distribution: its triple `(params, log_pdf, sample)`.
        x: data, (batch, *event).
        context, rng, train: as log_pdf takes them.
        weights: (batch,), not negative, in any unit; by default all rows count alike. Rows of weight 0 may have any density.

    Returns:
        Nats a row.

    Errors:
        FlowsError: no rows; weights of another shape, negative, infinite, NaN, or all 0. TypeError: not the triple of a
            distribution.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> distribution = flows.Normal(trainable=True)(0, 1)
        >>> loss = flows.objectives.maximum_likelihood(distribution.params, distribution, jnp.zeros((4, 1)))
        >>> round(float(loss), 3)                                                               # log(2 pi) / 2
        0.919
    """
    log_pdf, _ = functions("maximum_likelihood", distribution)
    keywords = {"context": context, "rng": rng, "train": None if train is False else train}
    log_q = log_pdf(params, x, **{name: value for name, value in keywords.items() if value is not None})
    if not len(log_q):
        raise FlowsError("maximum_likelihood: x has no rows; expected at least one")
    return -mean_of_rows("maximum_likelihood", log_q, weights)


def reverse_kl(
    params: Any,
    distribution: Any,
    log_density: Callable,
    rng: Any,
    num_samples: int,
    *,
    estimator: str = "total",
    context: Any = None,
) -> Array:
    """KL(q || p) - log Z, which is minus the ELBO: the mean of -log w(x) over draws x of q, with w(x) = p(x) Z / q(x).

    In the mean it is at least -log Z, and equal to it where q = p; a draw where p is 0 leaves it not finite. Estimators
    have the same value and differ in their gradient:

    - "total": the gradient of -log w(x) as it is, through the draws and through log q.
    - "sticking_the_landing": through the draws alone, -(d log w / dx) dx/dparams. What it leaves out has mean 0, but not
      variance 0. It is exactly 0 at q = p. "path" is another name for it: the path gradient of the reverse KL is the same.
    - "score": at fixed draws, (log w - mean of the others' log w) times -d log q / dparams. It has the most variance, but asks
      nothing of the draws. The others miss params that change a choice in a draw and not its value: the weights of a `Mixture`
      or of a `GMM` learn from "score" alone.

    Args:
        params: of the distribution, what is trained.
        distribution: its triple `(params, log_pdf, sample)`.
        log_density: the target. If it depends on traced arrays, these are trained along, with the gradient of "total".
        rng: key or seed.
        num_samples: draws. Each costs one `sample` and one `log_pdf`, and so does any estimator's gradient.
        estimator: see above.
        context: as sample takes it: shared by all draws, or (num_samples, *context), one draw for each.

    Errors:
        FlowsError: log_density does not give one number for each point; settings outside their range. TypeError: not the
            triple of a distribution, or a log_density that cannot be called.

    Source:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015, arXiv:1505.05770, equation 15. Sticking the
        landing: Roeder, Wu and Duvenaud, 2017, arXiv:1703.09194. Path gradients: Vaitl, Nicoli, Nakajima and Kessel, 2022,
        arXiv:2206.09016 and arXiv:2207.08219. The score with the others' mean: Kool, van Hoof and Welling, "Buy 4 REINFORCE
        Samples, Get a Baseline for Free!", 2019; Richter et al., "VarGrad", 2020, arXiv:2010.10436.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> distribution = flows.Normal(trainable=True)(0, 2)
        >>> log_density = lambda x: -0.5 * jnp.square(x).sum(1)
        >>> loss = flows.objectives.reverse_kl(distribution.params, distribution, log_density, 0, 64)
        >>> round(float(loss), 3)                                                               # -log(2 pi)
        -1.838
    """
    _check_one_of(estimator, ("total", "sticking_the_landing", "path", "score"), "reverse_kl")
    check_floats(params, "reverse_kl")
    problem = Problem("reverse_kl", distribution, log_density, context)
    n, key = positive_int(num_samples, "reverse_kl: num_samples"), as_key(rng)
    if estimator == "total":
        return -problem.weighted_draws(params, key, n)[1].mean()
    problem.check_scores(f'estimator="{estimator}"')
    if estimator != "score":
        x, log_w, slope = problem.paths(params, key, n)
        return -log_w.mean() - along(x, slope, jnp.full_like(log_w, 1 / n))
    if n < 2:
        raise FlowsError('reverse_kl: num_samples is 1; estimator="score" compares each draw with the others, so needs 2')
    x = stop_gradient(problem.draw(stop_gradient(params), key, n))
    log_p, log_q = problem.log_p(x), problem.log_q(params, x)
    excess = stop_gradient(log_q - log_p)
    score = stop_gradient(excess - excess.mean()) / (n - 1) * (log_q - stop_gradient(log_q))
    return (stop_gradient(log_q) - log_p).mean() + score.sum()


def forward_kl(
    params: Any,
    distribution: Any,
    log_density: Callable,
    rng: Any,
    num_samples: int,
    *,
    proposal: Any = None,
    estimator: str = "score",
    context: Any = None,
) -> Array:
    """KL(p || q) by self-normalised importance sampling: sum_i v_i log(p(x_i) Z / q(x_i)) - log(mean w), v = w / sum(w).

    The x_i are draws of a proposal r, with weights w = p Z / r. Where r is q itself, this is log n minus the entropy of v: from
    0, where all weights are equal, to log n, where one draw has all the weight. It then cannot show a KL above log n, and sees
    nothing of p where q never goes: look at `effective_sample_size` and `pareto_k`, or give a wider proposal. The bias is of
    order 1 / n. Estimators have the same value and differ in their gradient:

    - "score": -sum_i v_i d log q(x_i) / dparams, at fixed draws and weights.
    - "path": -sum_i v_i (1 - v_i) (d log w / dx) dx/dparams, through the draws of q; other proposals have no such path.
      It is exactly 0 at q = p, where the gradient of "score" is not. The path gradient of the forward KL has v_i in place of
      v_i (1 - v_i), which differs by order 1 / n; with the latter, as in Tucker et al., its mean is the mean of "score".

    Args:
        params: of the distribution, what is trained.
        distribution: its triple `(params, log_pdf, sample)`.
        log_density: the target. No gradient goes to arrays that it depends on.
        rng: key or seed.
        num_samples: draws, n.
        proposal: r, a triple with the params to draw with; by default q. It is handed the context if its functions name it.
        estimator: see above.
        context: shared by all draws. Several contexts are several targets: take them with `jax.vmap`.

    Errors:
        FlowsError: as `reverse_kl`; "path" with a proposal; a row of context for each draw. TypeError: as `reverse_kl`.

    Source:
        Bornschein and Bengio, "Reweighted Wake-Sleep", 2015, arXiv:1406.2751. The path: Tucker, Lawson, Gu and Maddison,
        "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives", 2019, arXiv:1810.04152; Vaitl, Nicoli, Nakajima
        and Kessel, 2022, arXiv:2207.08219.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> distribution = flows.Normal(trainable=True)(0, 1)
        >>> log_density = lambda x: -jnp.abs(x[:, 0])
        >>> loss = flows.objectives.forward_kl(distribution.params, distribution, log_density, 0, 1000)
        >>> 0 < float(loss) < 0.3
        True
    """
    _check_one_of(estimator, ("score", "path"), "forward_kl")
    check_floats(params, "forward_kl")
    if estimator == "path" and proposal is not None:
        raise FlowsError('forward_kl: estimator="path" follows the draws of q; leave out proposal, or use "score"')
    problem = Problem("forward_kl", distribution, log_density, context)
    n, key = positive_int(num_samples, "forward_kl: num_samples"), as_key(rng)
    problem.check_shared(n)
    problem.check_scores(f'estimator="{estimator}"')
    if estimator == "path":
        x, log_w, slope = problem.paths(params, key, n)
        v = jax.nn.softmax(log_w)
        return stop_gradient(weighted_sum(v, log_w) - log_mean(log_w)) - along(x, slope, v * (1 - v))
    source, draw_params = problem, params
    if proposal is not None:
        names = named_by(functions("forward_kl: proposal", proposal)[1], ("context",))
        source = Problem("forward_kl: proposal", proposal, log_density, problem.context if names else None)
        draw_params = proposal[0]
    x = stop_gradient(source.draw(stop_gradient(draw_params), key, n))
    log_p, log_q = stop_gradient(problem.log_p(x)), problem.log_q(params, x)
    log_w = stop_gradient(log_p - (log_q if proposal is None else source.log_q(draw_params, x)))
    return weighted_sum(jax.nn.softmax(log_w), log_p - log_q) - log_mean(log_w)


def importance_weighted_bound(
    params: Any,
    distribution: Any,
    log_density: Callable,
    rng: Any,
    num_samples: int,
    num_inner: int,
    *,
    estimator: str = "total",
    context: Any = None,
) -> Array:
    """Minus the importance-weighted bound on log Z: the mean over num_samples of -log((w_1 + ... + w_K) / K), K = num_inner.

    w = p Z / q at draws of q. In the mean it is at least -log Z, and falls towards it as K grows; K = 1 is `reverse_kl`.
    Estimators have the same value and differ in their gradient:

    - "total": through the draws and through log q. The larger K, the less of it is signal.
    - "doubly_reparameterized": -sum_k v_k^2 (d log w_k / dx) dx/dparams, v = w / sum(w), with the same mean. It is 0 at q = p.

    Args:
        params: of the distribution, what is trained.
        distribution: its triple `(params, log_pdf, sample)`.
        log_density: the target, called with num_samples points at a time. If it depends on traced arrays, such as a decoder's,
            these are trained along, with the gradient of "total".
        rng: key or seed.
        num_samples, num_inner: num_samples K draws are made in all.
        estimator: see above. As in `reverse_kl`, neither trains the choices in a draw, the weights of a `Mixture`.
        context: shared by all draws, or (num_samples, *context), K draws for each.

    Errors:
        FlowsError and TypeError: as `reverse_kl`.

    Source:
        Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, arXiv:1509.00519. The second estimator:
        Tucker, Lawson, Gu and Maddison, 2019, arXiv:1810.04152.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> distribution = flows.Normal(trainable=True)(0, 1)
        >>> log_density = lambda x: -jnp.abs(x[:, 0])                                           # log Z = log 2 = 0.693
        >>> bound = flows.objectives.importance_weighted_bound
        >>> [round(-float(bound(distribution.params, distribution, log_density, 0, 100, k)), 1) for k in (1, 100)]
        [0.6, 0.7]
    """
    name = "importance_weighted_bound"
    _check_one_of(estimator, ("total", "doubly_reparameterized"), name)
    check_floats(params, name)
    problem = Problem(name, distribution, log_density, context)
    n = positive_int(num_samples, f"{name}: num_samples")
    keys = jax.random.split(as_key(rng), positive_int(num_inner, f"{name}: num_inner"))
    if estimator == "total":
        return -log_mean(jax.vmap(lambda key: problem.weighted_draws(params, key, n)[1])(keys)).mean()
    problem.check_scores(f'estimator="{estimator}"')
    x, log_w, slope = jax.vmap(lambda key: problem.paths(params, key, n))(keys)
    return -log_mean(log_w).mean() - along(x, slope, jnp.square(jax.nn.softmax(log_w, axis=0)) / n)


def _check_one_of(estimator: Any, known: tuple[str, ...], name: str) -> None:
    if not isinstance(estimator, str) or estimator not in known:
        raise FlowsError(f"{name}: estimator is {estimator!r:.60}; expected one of {', '.join(map(repr, known))}")


def mean_of_rows(name: str, values: Array, weights: Any) -> Array:
    """The mean over rows, by their weights if there are any."""
    if weights is None:
        return values.mean()
    w = as_array(weights, "weights").astype(values.dtype)
    if w.shape != values.shape:
        raise FlowsError(f"{name}: weights have shape {w.shape}, expected {values.shape}, one for each row")
    if not isinstance(w, jax.core.Tracer) and not (0 < np.sum(w) < np.inf and np.min(w) >= 0):
        raise FlowsError(f"{name}: weights are to be finite and not negative, with at least one above 0")
    return weighted_sum(w, values) / w.sum()
