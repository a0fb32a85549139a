"""A model that trains within a NumPyro program. Family: A flow in a NumPyro program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpyro

from flows.core import DistributionInit, DistributionLike, FlowsError, Given, Memo, Params, as_key, trainable
from flows.interop.models import Model, model_of
from flows.interop.numpyro.distribution import FlowDistribution, at_context
from flows.training.loop.losses import has_running_statistics

_constant = Memo(size=256)  # params of each model, drawn with a constant key


def module(
    name: str, init_fun: DistributionLike, input_dim: int | Sequence[int], *, context_dim: int | Sequence[int] = 0
) -> Callable[..., FlowDistribution]:
    """Declare the params of a model in a NumPyro program: a trained prior, a likelihood, an amortised guide.

    The trained params are the site `name + "$params"` of `numpyro.param`, drawn with the handler's key unless a value is
    substituted. "fixed" params (permutations, fixed rotations) are not a site: they are drawn with a constant key, and so are
    the same in every call of SVI, MCMC and Predictive. Leaves in the same dict as "fixed" start with the constant key, too, as
    they belong together: the factors of `InvertibleLinear` are factors of one rotation.

    Layers that measure data (`ActNorm`, `Standardize`) see no data here, and start as they do without data.

    Args:
        name: the name of the module, different from the name of every other site.
        init_fun: a distribution, such as `flows.Flow(flows.NSF())`.
        input_dim, context_dim: as init_fun takes them.

    Returns:
        A function that returns a distribution, as `flows.interop.numpyro.distribution` does. Its argument is the context,
        (..., *context); a model without a context takes no argument.

    Errors:
        TypeError: not a distribution. FlowsError: a plain closure, codes, a log-density that is a lower bound; batch norm,
            whose running statistics would not be measured; substituted params of another model; a context that is missing.

    Example:
        >>> import flows, jax, jax.numpy as jnp, numpyro
        >>> from flows.interop.numpyro import module
        >>> from numpyro.infer import SVI, Trace_ELBO
        >>> def guide(x):                                             # q(z | x), for any x at once
        ...     posterior = module("q", flows.Flow(flows.IAF(1, hidden=(4,))), 2, context_dim=3)
        ...     with numpyro.plate("rows", len(x)):
        ...         numpyro.sample("z", posterior(x))
        >>> def model(x):
        ...     with numpyro.plate("rows", len(x)):
        ...         z = numpyro.sample("z", numpyro.distributions.Normal(jnp.zeros(2), 1.0).to_event(1))
        >>> svi = SVI(model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO())
        >>> state, loss = svi.update(svi.init(jax.random.key(0), jnp.ones((5, 3))), jnp.ones((5, 3)))
        >>> sorted(svi.get_params(state))
        ['q$params']
    """
    model = model_of(init_fun, DistributionInit, input_dim, context_dim, "module")
    if has_running_statistics(init_fun):
        raise FlowsError(
            f"module: {init_fun!r:.80} has running statistics (BatchNorm), which a NumPyro program does not measure: use "
            "ActNorm, or a model without batch norm (batch_norm=False); or fit it with flows.fit, and give the result to "
            "flows.interop.numpyro.distribution"
        )
    site = f"{name}$params"
    trained = numpyro.param(site)
    if trained is None:
        key = numpyro.prng_key()
        trained = numpyro.param(site, drawn(model, jax.random.key(0) if key is None else as_key(key)))
    params = with_fixed(model, trained)
    model.check(params, f"module: the params of {name!r}")

    def at(context: Any = None) -> FlowDistribution:
        return at_context(params, context, model, f"module {name!r}")

    return at


def drawn(model: Model, key: Any) -> Params:
    """Draw the trained params with a key, and trained leaves next to "fixed" with the constant key."""
    params = model.known.part.init(key, Given())
    if all(jax.tree.leaves(trainable(params))):
        return params
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    fixed = {path[:i] for path in paths for i, step in enumerate(path) if getattr(step, "key", None) == "fixed"}

    def chosen(path: tuple, drawn: Any, constant: Any) -> Any:
        return constant if path[:-1] in fixed else drawn

    return split(jax.tree_util.tree_map_with_path(chosen, params, _by_constant_key(model)))[0]


def with_fixed(model: Model, trained: Params) -> Params:
    """Return all params, trained and fixed."""
    if all(jax.tree.leaves(trainable(model.known.params))):
        return trained
    fixed = split(_by_constant_key(model))[1]
    try:
        return joined(trained, fixed)
    except ValueError:  # the structure differs, and the check after this names it
        return trained


def _by_constant_key(model: Model) -> Params:
    """Return params drawn with a constant key, as numbers even within a trace, so that no step draws them again."""
    with jax.ensure_compile_time_eval():
        return _constant(model, lambda: model.known.part.init(jax.random.key(0), Given()))


def split(params: Any) -> tuple[Any, Any]:
    """Return the trained leaves and the "fixed" leaves, each with None in the places of the others."""
    trains = trainable(params)
    return (
        jax.tree.map(lambda leaf, train: leaf if train else None, params, trains),
        jax.tree.map(lambda leaf, train: None if train else leaf, params, trains),
    )


def joined(trained: Any, fixed: Any) -> Any:
    """Return the params that `split` took apart."""
    return jax.tree.map(lambda a, b: b if a is None else a, trained, fixed, is_leaf=lambda leaf: leaf is None)
