"""Numerics: formulas that many layers share, the precision of matrix products, loops over pieces of rows that fit the cache of
a CPU, and batches that are filled up to few sizes, so that few programs are compiled.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax import lax

from flows.core.caching import assigned
from flows.core.contract import Array, Params, Shape
from flows.core.inputs import holds_tracer, rows_within
from flows.core.meshes import by_device, current_mesh, num_devices

LOG_2PI = math.log(2 * math.pi)
# Rows: what a layer of splines computes for them about fits the cache of a core. Not a multiple of 512: features at such
# distances share few lines of the cache, and a spline flow takes a sixth longer, a triangular solve twice as long.
PIECE = 2064
# Networks make many more numbers from an image than from a vector. [1,024 densities of GlowImage(4), (32, 32, 3): 641 ms
# whole, 319 in pieces; 10,000 of RealNVP in 512 columns: 96 ms, 144 with the limit for images.]
NUMBERS = 2**20  # in a piece of vectors
NUMBERS_OF_IMAGES = 2**17  # in a piece of images

_iteration: ContextVar[tuple[Array, Any] | None] = ContextVar("iteration", default=None)
# Its results are equal where the same function is being traced; jax 0.7 has it elsewhere.
_tracing = getattr(jax.extend.core, "get_opaque_trace_state", None) or jax.core.get_opaque_trace_state


def enable_x64() -> AbstractContextManager:
    """Double precision inside a `with`, whatever the version of JAX calls it."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return jax.experimental.enable_x64()  # type: ignore[attr-defined]  # before jax 0.8


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def soft_clip(raw: Array, bound: float) -> Array:
    """bound tanh(raw / bound): `raw` where that is small, and always within +-bound."""
    return bound * jnp.tanh(raw / bound)


@soft_clip.defjvp
def _(bound: float, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # The derivative as one factor: multiplied by the bound first, a large cotangent would overflow.
    clipped = soft_clip(primals[0], bound)
    return clipped, (1 - jnp.square(clipped / bound)) * tangents[0]


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """log(1 + e^x): max(x, 0) + 2 artanh(u / (2 + u)) with u = e^-|x|.

    The series has the precision of float32, and takes a third of the time of log1p on a CPU.
    """
    if x.dtype != jnp.float32:
        return jax.nn.softplus(x)
    u = jnp.exp(-jnp.abs(x))
    ratio = u / (2 + u)
    series = jnp.full_like(x, 1 / 13)
    for k in range(11, 0, -2):
        series = series * ratio * ratio + 1 / k
    return jnp.maximum(x, 0.0) + 2 * ratio * series


@softplus.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # Divided last, as XLA on a CPU computes a quotient once, and a product again wherever it is read. Beyond 80 the exponential
    # would overflow in second derivatives.
    (x,) = primals
    return softplus(x), tangents[0] / (1 + jnp.exp(jnp.minimum(-x, 80.0)))


def saturated(x: Array, bound: float) -> Array:
    """x itself within +-bound; beyond it flattens out at +-(bound + 1): bound + tanh(x - bound), smooth once."""
    within = jnp.clip(x, -bound, bound)
    return within + jnp.tanh(x - within)


def soft_clip_inverse(clipped: Array, bound: float) -> Array:
    """The `raw` whose soft_clip is `clipped`, which is cut off at nine tenths of the bound: beyond, raw would be far off."""
    return bound * jnp.arctanh(jnp.clip(clipped / bound, -0.9, 0.9))


def varying(tree: Any, like: Any) -> Any:
    """`tree`, with leaves marked as varying over the axes of a mesh over which any leaf of `like` varies, under
    `jax.shard_map`: a loop needs this mark on the values that it starts with."""
    axes = frozenset[str]().union(*map(_axes, jax.tree.leaves(like)))
    return jax.tree.map(lambda leaf: _cast(leaf, tuple(sorted(axes - _axes(leaf)))), tree) if axes else tree


def _axes(x: Any) -> frozenset[str]:
    kind: Any = jax.typeof(x)
    axes = getattr(kind, "vma", None) or getattr(getattr(kind, "manual_axis_type", None), "varying", None)
    return axes or frozenset()


def _cast(x: Array, axes: tuple[str, ...]) -> Array:
    lax: Any = jax.lax
    return x if not axes else lax.pcast(x, axes, to="varying") if hasattr(lax, "pcast") else lax.pvary(x, axes)


def along(v: Array, x: Array) -> Array:
    """One number for each channel, with the rank of x, so that it broadcasts over every axis but the last."""
    return v.reshape((1,) * (x.ndim - 1) + v.shape)


def blocks_to_channels(x: Array, k: int) -> Array:
    """Blocks of k x k pixels to channels: (..., H k, W k, C) to (..., H, W, C k k)."""
    *rows, height, width, channels = x.shape
    cut = x.reshape(*rows, height // k, k, width // k, k, channels)
    return jnp.moveaxis(cut, (-4, -2), (-2, -1)).reshape(*rows, height // k, width // k, channels * k * k)


def next_float(x: Array, towards: float) -> Array:
    """The next number above x, or below where `towards` is negative; next to 0 the least that is not flushed to 0."""
    neighbor = jnp.nextafter(x, jnp.full_like(x, towards * jnp.inf))
    return jnp.where(x == 0, towards * jnp.finfo(x.dtype).tiny, neighbor)


HIGHEST = jax.lax.Precision.HIGHEST  # of matrix products, whose inputs an accelerator would otherwise round


class Precision(NamedTuple):
    matmul_dtype: str | None = None  # of the matrix products of networks; None: the dtype of the data
    remat: bool = False  # layers keep their inputs alone and are computed again for the gradient


_precision: ContextVar[Precision] = ContextVar("precision", default=Precision())  # noqa: B039


precision = _precision.get


def computed_with(how: Precision) -> AbstractContextManager[None]:
    """Trace functions inside a `with` at a precision."""
    return assigned(_precision, how)


# Batches


def iteration(i: Array | None) -> AbstractContextManager[None]:
    """Trace the body of a loop, in its iteration `i`, inside a `with`; None outside of loops, and around inner loops."""
    return assigned(_iteration, None if i is None else (i, _tracing()))


def current_iteration() -> Array | None:
    """The iteration of the loop whose body is traced; None in a function traced inside it, whose program jit may cache."""
    body = _iteration.get()
    return None if body is None or body[1] != _tracing() else body[0]


def saves_products(primitive: Any, *operands: Any, **params: Any) -> bool:
    """Tell which operations a loop keeps for its gradient: products with weights, and convolutions."""
    products = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return primitive is lax.conv_general_dilated_p or products(primitive, *operands, **params)


def unfused(x: Array) -> Array:
    """x; in the body of a loop on a CPU a separate array, which is computed before anything reads it.

    XLA fuses a slice of stacked arrays into every kernel that reads it. Addresses then depend on the iteration, and kernels of
    a CPU are no longer vectorised: exp takes 8 times as long, a spline flow 3 times. No fusion reaches into a branch.
    """
    i = current_iteration()
    return x if i is None else lax.platform_dependent(i, x, cpu=_branch, default=lambda i, x: x)


@jax.custom_jvp
def _branch(i: Array, x: Array) -> Array:
    return lax.cond(i >= 0, lambda x: x, jnp.zeros_like, x)


@_branch.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return _branch(*primals), tangents[1]


def off_strides(rows: int) -> int:
    """`rows`, or a few more where features would share lines of the cache (PIECE)."""
    return rows + 16 if rows > 512 and rows % 256 == 0 else rows


def in_pieces(fun: Callable, params: Any, *rows: Any, event: Shape | None = None) -> Any:
    """fun(params, *rows), a function of each row by itself; on a CPU many rows are taken in pieces that fit its cache.

    The size of `event`, by default of a row, decides how many rows fit. Rows stay whole under differentiation, where pieces
    would be slower as they store what a gradient needs, and where their number is a symbol of `jax.export`.
    """
    n, *shape = jax.tree.leaves(rows)[0].shape
    event = tuple(shape) if event is None else event
    piece = rows_within(PIECE, NUMBERS if len(event) == 1 else NUMBERS_OF_IMAGES, event)
    if not isinstance(n, int) or n < 2 * piece * num_devices() or jax.default_backend() != "cpu":
        return fun(params, *rows)
    if jax.closure_convert(lambda params, rows: fun(params, *rows), params, rows)[1]:
        return fun(params, *rows)  # it closes over a tracer, for which custom_jvp has no rule
    if current_mesh() is not None:  # a scan would give each piece to one device
        whole = n % num_devices()
        return fun(params, *rows) if whole else by_device(lambda p, rows: in_pieces(fun, p, *rows, event=event), params, rows)
    count = -(-n // piece)
    size = off_strides(-(-n // count))

    def split(x: Array) -> Array:
        padding = jnp.broadcast_to(x[:1], (count * size - n, *x.shape[1:]))
        return jnp.concatenate([x, padding]).reshape(count, size, *x.shape[1:])

    @jax.custom_jvp
    def pieces(params: Any, rows: Any) -> Any:
        def body(i: Array, piece: Any) -> tuple[Array, Any]:
            with iteration(i):
                return i + 1, fun(params, *piece)

        results = lax.scan(body, jnp.int32(0), jax.tree.map(split, rows))[1]
        return jax.tree.map(lambda y: y.reshape(count * size, *y.shape[2:])[:n], results)

    @pieces.defjvp
    def _(primals: tuple, tangents: tuple) -> Any:
        return jax.jvp(lambda params, rows: fun(params, *rows), primals, tangents)

    return pieces(params, rows)


def filled(n: int) -> int:
    """The least of few sizes that holds n rows: powers of two up to 128, then four in an octave, then whole pieces."""
    octave = 1 << max(n - 1, 0).bit_length()
    if n <= 128:
        return octave
    if n > 4 * PIECE:
        return -(-n // PIECE) * PIECE
    steps = (min(4 * PIECE, off_strides(octave * k // 8)) for k in (4, 5, 6, 7, 8))
    return next(size for size in steps if size >= n)


def call_filled(run: Callable, part: Any, event: Shape, params: Params, x: Array, context: Any, rng: Any, train: bool) -> Any:
    """run(params, x, context, rng, train) for n rows, filled up to one of few sizes where rows are independent.

    Rows are not filled up under a trace, where the program is the caller's; with rng or train, or with a plain closure or a
    user's network, as rows may then depend on each other; on several devices; nor where `run` will refuse the arguments.
    """
    with_rows = (x,) if context is None or context.shape == part.context else (x, context)  # arrays of n rows
    traced = holds_tracer((params, x, context))
    if traced or rng is not None or train or not part.independent or not part.compiled:
        return run(params, x, context, rng, train)
    n = len(x) if x.ndim else 0
    size = filled(n)
    shapes = zip(with_rows, (event, part.context), strict=False)
    fits = all([a.shape == (n, *shape) and len(a.devices()) == 1 for a, shape in shapes])
    if not n or size == n or not fits:
        return run(params, x, context, rng, train)
    x, *contexts = [grown(a, size) for a in with_rows]
    results = run(params, x, *(contexts or [context]), rng, train)
    return jax.tree.map(lambda a: first(a, n), results)


def grown(x: Array, size: int) -> Array:
    """x with copies of its last row up to `size`; on a CPU without a program for each number of rows."""
    if not on_cpu(x):
        return _grown(x, size)
    rows = np.asarray(x)
    return put(np.concatenate([rows, np.broadcast_to(rows[-1:], (size - len(rows), *rows.shape[1:]))]), x)


def first(x: Array, n: int) -> Array:
    """x[:n]; on a CPU without a program for each number of rows."""
    return put(np.asarray(x)[:n], x) if on_cpu(x) else x[:n]


@partial(jax.jit, static_argnums=1)
def _grown(x: Array, size: int) -> Array:
    return jnp.concatenate([x, jnp.broadcast_to(x[-1:], (size - len(x), *x.shape[1:]))])


def put(rows: np.ndarray, like: Array) -> Array:
    """`rows` on the device of `like`."""
    return jax.device_put(rows, like.sharding if like.committed else None)


def on_cpu(x: Any) -> bool:
    """Tell whether x is an array in the memory of this process alone; a tracer is not."""
    known = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    return known and len(x.devices()) == 1 and next(iter(x.devices())).platform == "cpu"
