"""Training, densities and samples of a flow written in JAX."""

from functools import partial
from itertools import count

import jax
import optax
from workloads import CLIP, Model


def model(params, log_prob, sample) -> Model:
    """Of the functions log_prob(params, x) and sample(params, key, n)."""
    # Compiled functions are given the leaves alone: some libraries' modules take long to be taken apart at each call.
    leaves, tree = jax.tree.flatten(params)
    optimizer, clipped, seeds = optax.adam(1e-3), optax.chain(optax.clip_by_global_norm(CLIP), optax.scale_by_adam()), count()
    state, of_train = [leaves, optimizer.init(leaves)], clipped.init(leaves)

    def gradient(leaves, x):
        return jax.value_and_grad(lambda leaves: -log_prob(tree.unflatten(leaves), x).mean())(leaves)

    @jax.jit  # without donation, which makes the largest workload slower on a CPU
    def update(leaves, opt_state, x):
        loss, grads = gradient(leaves, x)
        updates, opt_state = optimizer.update(grads, opt_state, leaves)
        return optax.apply_updates(leaves, updates), opt_state, loss

    @jax.jit
    def update_at(leaves, opt_state, x, rate):
        loss, grads = gradient(leaves, x)
        updates, opt_state = clipped.update(grads, opt_state)
        return [leaf - rate * update for leaf, update in zip(leaves, updates, strict=True)], opt_state, loss

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

    def train(x, rate):
        nonlocal of_train
        state[0], of_train, loss = update_at(state[0], of_train, x, rate)
        return jax.block_until_ready(loss)

    def restore(leaves):
        state[0] = leaves

    return Model(
        step,
        lambda x: jax.block_until_ready(density(state[0], x)),
        lambda n: jax.block_until_ready(draw(state[0], next(seeds), n)),
        sum(leaf.size for leaf in leaves),
        train,
        lambda: state[0],
        restore,
    )
