"""Models that tests of files write and read, some with constructors of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import registry

import flows
from flows.core.inputs import as_context
from flows.persistence.models import _abstract


@flows.bijection
def Stretch(by=2.0, options=None):
    def init_fun(rng, shape):
        return {"log_scale": jnp.full(shape, np.log(by), jnp.float32)}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return x * jnp.exp(params["log_scale"]), params["log_scale"].sum()

    def inverse_fun(params, y):
        return y * jnp.exp(-params["log_scale"])

    return init_fun


@flows.bijection
def Rotation():
    """Its init needs numbers: NumPy draws them."""

    def init_fun(rng, shape):
        draw = np.random.default_rng(np.asarray(jax.random.key_data(rng)))
        q = np.linalg.qr(draw.normal(size=(*shape, *shape)))[0]
        return {"fixed": {"q": jnp.asarray(q, jnp.float32)}}, direct_fun, lambda params, y: params["fixed"]["q"].T @ y

    def direct_fun(params, x):
        return params["fixed"]["q"] @ x, jnp.linalg.slogdet(params["fixed"]["q"])[1]

    return init_fun


@flows.bijection
def Mixed():
    """Leaves of every dtype, an empty one and one without axes."""

    def init_fun(rng, shape):
        params = {
            "half": jnp.ones(shape, jnp.float16),
            "brain": (jnp.full((2, 3), 1.5, jnp.bfloat16), jnp.zeros((0, 2))),
            "scale": jnp.asarray(2.0),
        }
        return params, lambda params, x: (x * params["scale"], jnp.log(params["scale"])), lambda params, y: y / params["scale"]

    return init_fun


OWN = [Stretch, Rotation, Mixed, registry.SmallConv]
small = flows.MLP(4, last_scale=1.0)
tiny = flows.ActNorm()

MODELS = {  # init_fun, event, context_dim
    "Serial": (flows.Serial(flows.ActNorm(), flows.Shuffle(), flows.Invert(flows.AffineCoupling(small))), 3, 0),
    "Flow of NSF": (flows.Flow(flows.NSF(1, hidden=(4,), num_bins=3), flows.Normal(trainable=True)), 3, 0),
    "Repeat": (flows.Flow(flows.Repeat(flows.Serial(flows.AffineCoupling(small), flows.Reverse()), 3)), 2, 0),
    "BatchNorm": (flows.Flow(flows.BatchNorm()), 2, 0),
    "GMM": (flows.Flow(flows.ActNorm(), registry.mixture(trainable=False)), 2, 0),
    "conditional": (flows.Flow(flows.AffineCoupling(small)), 2, 2),
    "image": (flows.Serial(flows.Squeeze(), flows.FactorOut(flows.ActNorm(), flows.InvertibleLinear())), (2, 2, 3), 0),
    "user's": (flows.Flow(flows.Serial(Stretch(3.0, {"a": (1, float("inf"))}), Rotation())), 2, 0),
}


def drawn(init_fun, event, context_dim=0, seed=0):
    """Params of this structure with numbers of their own: no init is compiled for them. Positive, as variances must be."""
    rng = np.random.default_rng(seed)
    event = event if isinstance(event, tuple) else (event,)
    like = _abstract(init_fun, event, as_context(context_dim))[1]
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 + 0.3 * rng.uniform(size=leaf.shape), leaf.dtype), like)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert isinstance(one, jax.Array) and (one.dtype, one.shape) == (two.dtype, two.shape)
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes()
