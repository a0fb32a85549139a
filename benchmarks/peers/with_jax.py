"""Training, densities and samples of a flow written in JAX."""

from functools import partial
from itertools import count

import jax
import optax
from workloads import Model


def model(params, log_prob, sample) -> Model:
    """Of the functions log_prob(params, x) and sample(params, key, n)."""
    # Compiled functions are given the leaves alone: some libraries' modules take long to be taken apart at each call.
    leaves, tree = jax.tree.flatten(params)
    optimizer, seeds = optax.adam(1e-3), count()
    state = [leaves, optimizer.init(leaves)]

    @jax.jit  # without donation, which makes the largest workload slower on a CPU
    def update(leaves, opt_state, x):
        loss, grads = jax.value_and_grad(lambda leaves: -log_prob(tree.unflatten(leaves), x).mean())(leaves)
        updates, opt_state = optimizer.update(grads, opt_state, leaves)
        return optax.apply_updates(leaves, updates), opt_state, loss

    @jax.jit
    def density(leaves, x):
        return log_prob(tree.unflatten(leaves), x)

    @partial(jax.jit, static_argnums=2)
    def draw(leaves, seed, n):
        return sample(tree.unflatten(leaves), jax.random.key(seed), n)

    def step(x):
        nonlocal state
        *state, loss = update(*state, x)
        return jax.block_until_ready((loss, state))[0]

    return Model(
        step,
        lambda x: jax.block_until_ready(density(state[0], x)),
        lambda n: jax.block_until_ready(draw(state[0], next(seeds), n)),
        sum(leaf.size for leaf in leaves),
    )
