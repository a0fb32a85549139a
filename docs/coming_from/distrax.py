import functools
import pathlib
import tempfile

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, serialization
from tensorflow_probability.substrates.jax import bijectors as tfb

table = np.loadtxt("examples/data/galaxies.csv", delimiter=",", skiprows=1)[:6000]
table = table[:, [0, 4, 1, 2, 3]].astype(np.float32)  # redshift, i, u, g, r
x, c = table[:, :2], (table[:, 2:] - table[:4000, 2:].mean(0)) / table[:4000, 2:].std(0)
logs = np.stack([np.log(x[:4000, 0]), x[:4000, 1]], 1)
exp = tfb.Blockwise([tfb.Exp(), tfb.Identity()])  # a redshift is positive
units = tfb.Chain([exp, tfb.Shift(logs.mean(0)), tfb.Scale(logs.std(0))])
base = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))
hidden = [linen.Dense(64), linen.relu, linen.Dense(64), linen.relu]
net = linen.Sequential([*hidden, linen.Dense(31), lambda theta: theta[..., None, :]])
spline = functools.partial(distrax.RationalQuadraticSpline, range_min=-5, range_max=5)


def flow(params, c):
    nets = [lambda x, p=p: net.apply(p, jnp.append(x, c, -1)) for p in params]
    layers = [distrax.SplitCoupling(1, 1, nets[i], spline, i % 2 > 0) for i in range(6)]
    return distrax.Transformed(base, distrax.Chain([units, *layers]))


loss = jax.jit(lambda params, x, c: -flow(params, c).log_prob(x).mean())
params = best = [net.init(jax.random.key(i), jnp.zeros(4)) for i in range(6)]
adam, losses, rng = optax.adam(1e-3), [], np.random.default_rng(0)
state, update, grad = adam.init(params), jax.jit(adam.update), jax.jit(jax.grad(loss))
while len(losses) < 20 + np.argmin(losses or [0]):  # 20 epochs after the best
    for i in np.split(rng.permutation(4000), 16):
        change, state = update(grad(params, x[i], c[i]), state)
        params = optax.apply_updates(params, change)
    losses.append(loss(params, x[4000:5000], c[4000:5000]))
    best = params if losses[-1] == min(losses) else best
keys = jax.random.split(jax.random.key(0), 1000)
draws = jax.vmap(lambda key: flow(best, c[5000]).sample(seed=key))(keys)
print(f"{-loss(best, x[5000:], c[5000:]):.3f} nats a row, draws {draws.shape}")
file = pathlib.Path(tempfile.mkdtemp(), "params")
file.write_bytes(serialization.to_bytes(best))
again = serialization.from_bytes(params, file.read_bytes())  # of the same networks
