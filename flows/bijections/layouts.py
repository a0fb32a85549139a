"""Layouts of images: pixels become channels or tokens, so that layers for channels serve any mask. log|det J| = 0.
Family: Permutations and layouts."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from flows.core import Array, FlowsError, Shape, Support, as_event, bijection, blocks_to_channels, positive_int, size


@bijection(support=Support(moves_entries=True))
def Checkerboard():
    """Pixels of one colour of a chessboard, then of the other colour: (H, W, C) to (H, W / 2, 2 C), log|det J| = 0.

    y[i, j, c] = x[i, 2 j + i mod 2, c], a pixel whose row and column add up to an even number, and
    y[i, j, C + c] = x[i, 2 j + 1 - i mod 2, c], its neighbour in the same row. `Coupling` of the first half of the channels is
    then the checkerboard mask: `Through(Checkerboard(), Coupling(net))`.

    Params:
        None.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an event that is not (H, W, C), or whose W is odd; H may be.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, section 3.4.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Checkerboard()(0, (2, 4, 1))
        >>> direct_fun(params, jnp.arange(8.0).reshape(1, 2, 4, 1))[0][0].tolist()
        [[[0.0, 1.0], [2.0, 3.0]], [[5.0, 4.0], [7.0, 6.0]]]
    """

    def init_fun(rng, shape):
        check_image("Checkerboard", shape, (1, 2), "an even W")
        h, w, c = shape

        def even_first(pairs: Array) -> Array:
            """Neighbours (H, W / 2, 2, C), in odd rows the other way round, which undoes itself."""
            odd = (np.arange(h) % 2 == 1)[:, None, None, None]
            return jnp.where(odd, pairs[:, :, ::-1], pairs)

        def there(x: Array) -> Array:
            return even_first(x.reshape(h, w // 2, 2, c)).reshape(h, w // 2, 2 * c)

        def back(y: Array) -> Array:
            return even_first(y.reshape(h, w // 2, 2, c)).reshape(shape)

        return moving(there, back)

    return init_fun


@bijection(support=Support(moves_entries=True))
def Stripes(axis: int):
    """Every other row, or column, to channels: (H, W, C) to (H / 2, W, 2 C) or (H, W / 2, 2 C), log|det J| = 0.

    y[i, j, a C + c] = x[2 i + a, j, c] for rows, axis 0, and x[i, 2 j + a, c] for columns, axis 1, with a = 0 and 1: rows
    or columns of an even number are the first half of the channels.

    Args:
        axis: 0 for rows, 1 for columns.

    Params:
        None.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an axis other than 0 or 1; an event that is not (H, W, C), or whose side along the axis is odd.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Stripes(axis=0)(0, (2, 3, 1))
        >>> direct_fun(params, jnp.arange(6.0).reshape(1, 2, 3, 1))[0][0].tolist()
        [[[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]]
    """
    if type(axis) is not int or axis not in (0, 1):
        raise FlowsError(f"Stripes: axis is {axis!r:.60}; expected 0 for rows or 1 for columns")

    def init_fun(rng, shape):
        check_image("Stripes", shape, (2 - axis, 1 + axis), f"an even {'HW'[axis]}, as axis={axis}")
        halved = [side // 2 if i == axis else side for i, side in enumerate(shape[:2])]

        def there(x: Array) -> Array:
            pairs = x.reshape(*shape[:axis], halved[axis], 2, *shape[axis + 1 :])
            return jnp.moveaxis(pairs, axis + 1, 2).reshape(*halved, 2 * shape[2])

        def back(y: Array) -> Array:
            return jnp.moveaxis(y.reshape(*halved, 2, shape[2]), 2, axis + 1).reshape(shape)

        return moving(there, back)

    return init_fun


@bijection(support=Support(moves_entries=True))
def Squeeze(factor: int = 2):
    """Blocks of `factor` x `factor` pixels to channels: (H, W, C) to (H / factor, W / factor, C factor^2), log|det J| = 0.

    y[i, j, (c f + a) f + b] = x[i f + a, j f + b, c]: the pixels of a block of one channel stay together.

    Args:
        factor: the side of a block, at least 2.

    Params:
        None.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an event that is not (H, W, C), or whose sides are not multiples of `factor`.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803, section 3.6.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Squeeze()(0, (4, 4, 3))
        >>> direct_fun(params, jnp.ones((1, 4, 4, 3)))[0].shape
        (1, 2, 2, 12)
    """
    if positive_int(factor, "Squeeze: factor") < 2:
        raise FlowsError("Squeeze: factor is 1, which changes nothing; expected at least 2")

    def init_fun(rng, shape):
        if len(shape) != 3 or shape[0] % factor or shape[1] % factor:
            raise FlowsError(f"Squeeze: the event is {shape}; expected (H, W, C) with H and W multiples of factor={factor}")
        return moving(lambda x: blocks_to_channels(x, factor), back)

    def back(y: Array) -> Array:
        h, w, c = y.shape
        blocks = y.reshape(h, w, c // factor**2, factor, factor).transpose(0, 3, 1, 4, 2)
        return blocks.reshape(h * factor, w * factor, c // factor**2)

    return init_fun


@bijection(support=Support(moves_entries=True))
def Patchify(p: int):
    """Blocks of `p` x `p` pixels to tokens: (H, W, C) to (T, p^2 C), T = (H / p) (W / p), log|det J| = 0.

    y[i (W / p) + j, (a p + b) C + c] = x[i p + a, j p + b, c]: tokens go row by row through the image, the entries of a token
    row by row through its block, the channels of a pixel next to each other.

    Args:
        p: the side of a block; with 1, each pixel is a token.

    Params:
        None.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an event that is not (H, W, C), or whose sides are not multiples of `p`.

    Source:
        Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", 2021,
        arXiv:2010.11929, section 3.1.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Patchify(2)(0, (4, 6, 3))
        >>> direct_fun(params, jnp.ones((1, 4, 6, 3)))[0].shape
        (1, 6, 12)
    """
    positive_int(p, "Patchify: p")

    def init_fun(rng, shape):
        check_image("Patchify", shape, (p, p), f"H and W multiples of p={p}")
        h, w, c = shape

        def there(x: Array) -> Array:
            return x.reshape(h // p, p, w // p, p, c).transpose(0, 2, 1, 3, 4).reshape(h * w // p**2, p * p * c)

        def back(y: Array) -> Array:
            return y.reshape(h // p, w // p, p, p, c).transpose(0, 2, 1, 3, 4).reshape(shape)

        return moving(there, back)

    return init_fun


@bijection(support=Support(moves_entries=True))
def Reshape(shape: int | Sequence[int] | None = None):
    """Gives an event another shape, with the same numbers in the same order: y = x.reshape(shape), log|det J| = 0.

    Args:
        shape: the event of y, an int for a vector or a tuple; by default a vector of all numbers.

    Params:
        None.

    Cost:
        Direct: O(d). Inverse: O(d).

    Errors:
        FlowsError: an event of another size. TypeError: a shape that is neither an int nor a tuple of ints.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Reshape((28, 28, 1))(0, 784)
        >>> direct_fun(params, jnp.ones((1, 784)))[0].shape
        (1, 28, 28, 1)
    """
    new_event = None if shape is None else as_event(shape, "Reshape: shape")

    def init_fun(rng, shape):
        target = (size(shape),) if new_event is None else new_event
        if size(shape) != size(target):
            raise FlowsError(
                f"Reshape: the event {shape} has {size(shape)} numbers, and the shape {target} {size(target)}; expected as many"
            )
        return moving(lambda x: x.reshape(target), lambda y: y.reshape(shape))

    return init_fun


def moving(there: Callable[[Array], Array], back: Callable[[Array], Array]) -> tuple:
    """The params of a layout, which are empty, and its functions, which move entries."""
    return {}, lambda params, x: (there(x), jnp.zeros((), x.dtype)), lambda params, y: back(y)


def check_image(name: str, event: Shape, divisors: tuple[int, int], expected: str) -> None:
    """Refuse an event that is not (H, W, C) with sides that are multiples of the divisors."""
    if len(event) != 3 or any(side % by for side, by in zip(event[:2], divisors, strict=True)):
        raise FlowsError(
            f"{name}: the event is {event}; expected an image (H, W, C) with {expected}. Pad or crop it, or make an image of a "
            "vector by Reshape((H, W, C))"
        )
