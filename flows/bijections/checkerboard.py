"""Couplings of the pixels of one colour of a chessboard, as in RealNVP: the network sees a whole image, half of it zero."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.engine import Columns, Seen, for_each
from flows.conditioners.network import Squash, build_events
from flows.core import Array, FlowsError, Given, Layer, as_context
from flows.transformers.base import Transformer


def coupling_of_pixels(net: Callable, transformers: tuple[Transformer, ...], flip: bool, squash: Squash) -> Callable:
    """The init_fun of a `Coupling` that keeps the pixels whose row and column add up to an even number; flipped, the others.

    Arrays are (channels, batch, H, W) inside. Of kept pixels theta and x are 0 where the transformer sees them, so that what it
    makes of them, which is not used, cannot overflow and poison a gradient.
    """

    def init_fun(rng, shape, context_dim=0, init_inputs=None, init_context=None, params=None):
        if len(shape) != 3 or shape[0] * shape[1] < 2:
            raise FlowsError(
                f"Coupling: mask='checkerboard' is of pixels, and the event is {shape}; expected an image (H, W, C) of two or "
                "more. Give mask='alternating' for the features of a vector, or make an image of it by Reshape((H, W, C))"
            )
        h, w, c = shape
        each = for_each(transformers, c, "Coupling")
        columns, seen_as = Columns(each), Seen([one.period for one in each])
        kept = (np.add.outer(np.arange(h), np.arange(w)) % 2 == (1 if flip else 0))[None, None]
        keys = jax.random.split(rng) if columns.has_weights else (rng, rng)

        def moved(x: Array) -> Array:
            return jnp.where(kept, 0.0, x)

        def seen(x: Array) -> Array:
            mask = jnp.broadcast_to(jnp.asarray(kept, x.dtype), (1, *x.shape[1:]))
            return jnp.concatenate([jnp.where(kept, seen_as(x), 0.0), mask])

        own = params
        if own is None:
            weights = columns.init(keys[1]) if columns.has_weights else ()
            own = {"conditioner": None, "transformer": weights, "unconditional": {}, "fixed": {}}
        data = None if init_inputs is None else jnp.moveaxis(seen(jnp.moveaxis(init_inputs, -1, 0)), 0, -1)
        given = Given(data, init_context, own["conditioner"])
        dims = (h, w, seen_as.size + 1), (h, w, columns.num_params * c)
        start, run, names, *_ = build_events(net, keys[0], *dims, as_context(context_dim), given, squash)

        def theta_of(params, x, context, rng, train, inverse=False):
            theta = columns.alone(moved(run(params["conditioner"], seen(x), context, rng, train)), inverse)
            return theta.reshape(columns.num_params, *x.shape)

        def direct_fun(params, x, context=None, rng=None, train=False):
            x = jnp.moveaxis(x, -1, 0)
            theta = theta_of(params, x, context, rng, train)
            y, log_det = columns.direct(theta, moved(x), params["transformer"])
            return joined(x, y), moved(log_det).sum((0, 2, 3))

        def solved(params, y, context, rng, train):
            y = jnp.moveaxis(y, -1, 0)
            theta = theta_of(params, y, context, rng, train, inverse=True)
            return y, columns.inverse(theta, moved(y), params["transformer"])[0], theta

        def joined(of_kept, of_moved):
            return jnp.moveaxis(jnp.where(kept, of_kept, of_moved), 0, -1)

        def inverse_fun(params, y, context=None, rng=None, train=False):
            return joined(*solved(params, y, context, rng, train)[:2])

        def inverse_and_log_det(params, y, context=None, rng=None, train=False):
            """The network runs once; the log-det is that of direct_fun at the x returned."""
            y, x, theta = solved(params, y, context, rng, train)
            log_det = columns.direct(theta, moved(x), params["transformer"])[1]
            return joined(y, x), -moved(log_det).sum((0, 2, 3))

        params = {**own, "conditioner": start}
        return Layer(params, direct_fun, inverse_fun, inverse_and_log_det, keywords={"context", *names})

    return init_fun
