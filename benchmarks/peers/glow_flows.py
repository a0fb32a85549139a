"""Our Glow, in a process of its own, unrolled, as a loop or reversible: see glow_worker.py."""

import json
import os
import sys

form, core, sizes = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
os.sched_setaffinity(0, {core})  # before jax starts its threads

import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from glow_worker import serve  # noqa: E402

import flows  # noqa: E402

FORMS = {
    "unrolled": {"scan": False}, "loop": {"scan": True}, "reversible": {"scan": True, "reversible": True},
}  # fmt: skip


def build():
    side, batch = sizes["side"], sizes["batch"]
    bijection = flows.GlowImage(sizes["layers"], sizes["width"], sizes["levels"], split_prior=False, squash=None, **FORMS[form])
    x = np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype(np.float32)
    params, log_pdf, _ = flows.Flow(bijection)(0, (side, side, 3), init_inputs=x)
    trainable = flows.trainable(params)
    optimizer = optax.masked(optax.adam(1e-4), trainable)
    state = [params, optimizer.init(params)]

    @jax.jit
    def update(params, opt_state, x):
        loss, grads = jax.value_and_grad(lambda params: -log_pdf(params, x).mean())(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    x = jax.device_put(x)

    def step():
        *state[:], loss = update(*state, x)
        if not np.isfinite(loss):
            raise SystemExit(f"{form}: a step came to a loss of {loss}")
        jax.block_until_ready(state)

    leaves = zip(jax.tree.leaves(params), jax.tree.leaves(trainable), strict=True)
    return step, sum(leaf.size for leaf, trained in leaves if trained)


serve(build)
