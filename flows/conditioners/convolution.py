"""Parts of convolutional networks: the convolution, its layers, and events that are images. Family: Of images."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from flows.conditioners.dense import check_floating, dense_layers
from flows.core import HIGHEST, Array, FlowsError, along, as_context, blocks_to_channels, precision, size

POSITIONS, LEAST = 2048, 64  # pixels of a piece of a batch; least outputs for which pieces are faster
FEW = 4  # channels for each output, from which outputs are few
TINY = 1e-30  # the least square of a norm in a division


def conv(w: Array, x: Array) -> Array:
    """The convolution of images with kernels, of stride 1, with zeros beyond the edges.

    y[i, j] = sum_(a, b) w[a, b]'x[i + a - m, j + b - m], a and b from 0 to k - 1 and m = (k - 1) // 2: the sides stay. Every
    convolution of the library is this one, with all the bits of float32 unless `fit(matmul_dtype=)` asks for fewer. Its
    gradient is as fast in a loop as outside; on CPUs the gradient of `jax.lax.conv_general_dilated` is many times slower there.

    Args:
        w: kernels, (k, k, channels, outputs).
        x: images, (batch, height, width, channels).

    Errors:
        FlowsError: shapes that do not fit; images of whole numbers.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> flows.conditioners.conv(jnp.ones((3, 3, 1, 1)), jnp.ones((1, 3, 3, 1)))[0, :, :, 0].tolist()
        [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    if w.ndim != 4 or x.ndim != 4 or w.shape[2] != x.shape[3]:
        raise FlowsError(f"conv: w is {w.shape} and x {x.shape}; expected (k, k, C, outputs) and (batch, H, W, C)")
    check_floating(x, "conv")
    dtype = jnp.dtype(precision().matmul_dtype or x.dtype)
    kernels, images = w.astype(dtype), x.astype(dtype)
    if w.shape[:2] == (1, 1):
        y = _rows_by(kernels[0, 0], images)
    else:
        y = _conv(kernels, images)
    return y.astype(x.dtype)


@jax.custom_jvp
def _conv(w: Array, x: Array) -> Array:
    return _laid_out(x, w, ("NHWC", "HWIO", "NHWC"))


def _tangent(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    """The convolution and its tangent, laid out so that its transpose, the gradient, has the layout of `_conv` itself.

    XLA for CPUs has a fast convolution for this layout alone, and converts others to it outside of loops only (jax issue
    12868). [Gradient, 3x3, 64 channels, 32 images of 16x16: 8.9 ms in a loop and outside of it; XLA's own 575 and 10.2.]
    """
    (w, x), (dw, dx), parts = primals, tangents, list[Array]()
    if not isinstance(dx, SymbolicZero):
        parts.append(_laid_out(dx, w.swapaxes(2, 3), ("NHWC", "HWOI", "NHWC")))
    if not isinstance(dw, SymbolicZero):
        parts.append(_by_kernel(dw, x))
    # Not `_conv`: the primitive decides what a loop stores for its gradient.
    return _laid_out(x, w, ("NHWC", "HWIO", "NHWC")), reduce(jnp.add, parts)


_conv.defjvp(_tangent, symbolic_zeros=True)


def _by_kernel(w: Array, x: Array) -> Array:
    """The convolution, written so that its gradient convolves channels, as a batch, with cotangents, as a kernel.

    A CPU takes pieces of the batch that fit its cache, or where outputs are few a product of matrices. [Gradient in w
    of 32 images of 16x16, a core: 64 channels, 8.3 ms whole and 3.7 in pieces; 128 channels to 12, 4.3 and by a product 2.1.]
    """
    (n, height, width, channels), outputs = x.shape, w.shape[3]

    def piece(images: Array, w: Array) -> Array:
        return _laid_out(images, w.transpose(2, 0, 1, 3), ("CHWN", "IHWO", "HWNC")).transpose(2, 0, 1, 3)

    on_cpu = isinstance(n, int) and jax.default_backend() == "cpu"
    if on_cpu and channels >= FEW * outputs:
        return _by_product(w, x)
    if not on_cpu or outputs < LEAST or n * height * width <= POSITIONS:
        return piece(x.transpose(3, 1, 2, 0), w)
    count = -(-n * height * width // POSITIONS)
    length = -(-n // count)
    x = jnp.pad(x, ((0, count * length - n), (0, 0), (0, 0), (0, 0)))
    pieces = x.reshape(count, length, height, width, channels).transpose(0, 4, 2, 3, 1)

    def whole(w: Array) -> Array:
        return jax.lax.map(lambda images: piece(images, w), pieces).reshape(count * length, height, width, outputs)[:n]

    # As the tangent of a loop: in jax 0.7 a loop over a tangent has no gradient. The loop on zeros is not run.
    return jax.jvp(whole, (jnp.zeros_like(w),), (w,))[1]


def _by_product(w: Array, x: Array) -> Array:
    """The convolution as one product with all entries of the kernels, whose parts are moved by their places in the kernel."""
    (k, _, channels, outputs), m = w.shape, (w.shape[0] - 1) // 2
    y = _rows_by(w.transpose(2, 0, 1, 3).reshape(channels, k * k * outputs), x)
    zero = jnp.zeros((), y.dtype)

    def moved(part: Array, down: int, right: int) -> Array:
        return jax.lax.pad(part, zero, ((0, 0, 0), (down, -down, 0), (right, -right, 0), (0, 0, 0)))

    return reduce(jnp.add, [moved(part, m - i // k, m - i % k) for i, part in enumerate(jnp.split(y, k * k, -1))])


def _rows_by(w: Array, x: Array) -> Array:
    """x w, for each pixel, as rows: with four axes the gradient of the product would take 2.5 times as long on CPUs."""
    rows = jnp.matmul(x.reshape(size(x.shape[:-1]), x.shape[-1]), w, precision=_digits(x.dtype))
    return rows.reshape(*x.shape[:-1], w.shape[1])


def _laid_out(x: Array, w: Array, layout: tuple[str, str, str]) -> Array:
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout, precision=_digits(x.dtype))


def _digits(dtype: Any) -> Any:
    """The precision of a product: the highest for float32 and longer dtypes, the fastest for shorter ones."""
    return HIGHEST if dtype.itemsize >= 4 else None


def conv_layers(key: Array, sizes: Iterable[tuple[int, int, int]], scales: Sequence[float]) -> tuple[dict[str, Array], ...]:
    """Layers of sizes (k, inputs, outputs), from one draw, with biases 0.

    Weights (k, k, inputs, outputs) are normal with variance scale^2 / (k^2 inputs).
    """
    sizes = list(sizes)
    layers = dense_layers(key, [(k * k * a, b) for k, a, b in sizes], scales)
    return tuple({**layer, "w": layer["w"].reshape(k, k, a, b)} for layer, (k, a, b) in zip(layers, sizes, strict=True))


def with_gain(layer: dict[str, Array], scale: float) -> dict[str, Array]:
    """A layer with a "gain" for each output, the norm of its kernel times the scale."""
    return {**layer, "gain": scale * jnp.sqrt(jnp.square(layer["w"]).sum((0, 1, 2)))}


def convolved(layer: dict[str, Array], x: Array) -> Array:
    """w * x + b; where the layer has a gain, w is first divided by its norm and multiplied by the gain, for each output."""
    w = layer["w"]
    if "gain" in layer:
        square = jnp.maximum(jnp.square(w).sum((0, 1, 2)), TINY)
        w = w * along(layer["gain"] * jax.lax.rsqrt(square), w)
    return conv(w, x) + along(layer["b"], x)


class Images:
    """An apply_fun that maps (*batch, H, W, channels), written as `formula(params, x, context)` on (batch, H, W, channels).

    A context of images becomes further channels of x; if its sides are k times as long, each block of k x k pixels does, so
    that the networks at every scale of a flow see all of it. The formula gets a context of vectors, (batch, context), or None.
    Unless it `joins`, a context of images stays one, of the sides of x.
    """

    def __init__(self, name: str, input_dim: Any, output_dim: Any, context_dim: Any, formula: Callable, joins: bool = True):
        if not isinstance(input_dim, tuple) or len(input_dim) != 3:
            events = f"vectors of {input_dim}" if isinstance(input_dim, int) else f"events {input_dim}"
            raise FlowsError(f"{name}: the inputs are {events}, expected images (H, W, channels); MLP takes vectors")
        sides, context = input_dim[:2], as_context(context_dim) or ()
        expected = f"images ({sides[0]}, {sides[1]}, channels), as the inputs are {input_dim}"
        if not isinstance(output_dim, tuple) or len(output_dim) != 3 or output_dim[:2] != sides:
            raise FlowsError(f"{name}: output_dim is {output_dim}, expected {expected}")
        self.block = max(context[0] // max(sides[0], 1), 1) if len(context) == 3 else 1
        if len(context) > 1 and (len(context) != 3 or context[:2] != tuple(self.block * side for side in sides)):
            raise FlowsError(
                f"{name}: context_dim is {context_dim}, expected a vector, or {expected}, or of k times these sides; resize or "
                "flatten it"
            )
        self.name, self.event, self.context, self.formula, self.joins = name, input_dim, context, formula, joins
        self.vector = context[0] if len(context) == 1 else 0  # the length of a context that is a vector
        of_images = context[2] * self.block**2 if len(context) == 3 else 0
        self.channels = input_dim[2] + of_images * joins  # of x as the formula gets it
        self.of_context = self.vector or of_images * (not joins)  # channels, or numbers, of the context that it gets

    def formula_inputs(self, inputs: Array, context: Array | None) -> tuple[Array, Array | None]:
        """Return x and context of the formula, from inputs (*batch, *event) and a context (*batch, *context) or (*context)."""
        rows, event = inputs.shape[:-3], inputs.shape[-3:]
        if event != self.event:
            raise FlowsError(f"{self.name}: inputs have shape {inputs.shape}, expected {self.event} after any leading axes")
        x = inputs.reshape(size(rows), *event)
        if context is None and not self.context:
            return x, None
        if context is None or not self.context or context.shape not in (self.context, (*rows, *self.context)):
            got = "none" if context is None else f"of shape {context.shape}"
            expected = (*rows, *self.context) if self.context else "none"
            raise FlowsError(f"{self.name}: the context is {got}, expected {expected}, as context_dim says")
        context = jnp.broadcast_to(context, (*rows, *self.context)).reshape(x.shape[0], *self.context)
        if self.vector:
            return x, context
        images = blocks_to_channels(context, self.block)
        return (jnp.concatenate([x, images], axis=-1), None) if self.joins else (x, images)

    def __call__(self, params: Any, inputs: Array, context: Array | None = None, **keywords: Any) -> Array:
        y = self.formula(params, *self.formula_inputs(inputs, context), **keywords)
        return y.reshape(*inputs.shape[:-3], *y.shape[1:])

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.formula)
