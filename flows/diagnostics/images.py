"""Figures of images by a model: bits for each number, and the typicality of images."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.bijections.composition import support_of
from flows.core import (
    DistributionInit,
    FlowsError,
    Rounding,
    Shape,
    as_context,
    as_key,
    as_rows_of_context,
    distribution_part,
    on_device,
    pieces_of,
    positive_int,
    size,
    structure_of,
    traits_by,
)
from flows.diagnostics.arrays import generator
from flows.distributions.draws import functions
from flows.distributions.support import chain_of, support

DRAWS = 10_000  # groups drawn from the reference, with which groups are compared


class Bits(NamedTuple):
    """Bits for each number of an image: the mean over images, its standard error, and the bits of each image, (images,)."""

    mean: float
    error: float
    each: np.ndarray


def bits_per_dim(
    fit: Any,
    images: Any,
    context: Any = None,
    rng: Any = 0,
    samples: int = 1,
    batch_size: int = 256,
) -> Bits:
    """Bits that a model takes for each number of images, an upper bound of -log2 P(x) / D.

    P(x) is the mass that a dequantised model gives to the cell around x, and D the count of numbers in an image. P(x) is
    estimated by the mean density over `samples` draws of the noise: on average its -log2 is too large, less with more samples.

    Args:
        fit: a result of `flows.fit` for a model that dequantises: `Dequantize(1.0)` in it, or `dequantize=1.0`; or for a
            model of codes or whole numbers, whose masses are exact.
        images: whole numbers 0, 1, ..., (images, *event).
        context: (images, *context), or (*context,) for all; for a conditional model.
        rng: key or seed of the noise.
        samples: draws of the noise for each image.
        batch_size: images that are scored together.

    Errors:
        FlowsError: images that are not whole numbers, or beyond the model's levels or support; a model without
            `Dequantize(1.0)`.
        TypeError: `fit` is not a fitted model.

    Source:
        Theis, van den Oord and Bethge, "A note on the evaluation of generative models", 2016, arXiv:1511.01844.

    Example:
        >>> import flows, numpy as np
        >>> init_fun = flows.Flow(flows.Dequantize(1.0), flows.Uniform(-0.5, 16.5))
        >>> images = np.random.default_rng(0).integers(0, 17, size=(100, 8, 8, 1))
        >>> bits = flows.bits_per_dim(flows.fit(0, init_fun, images, standardize=False, verbose=0), images)
        >>> round(bits.mean, 4), round(float(np.log2(17)), 4)
        (4.0875, 4.0875)
    """
    log_pdf, _ = functions("bits_per_dim", fit)
    x, init_fun = np.asarray(images), getattr(fit, "init_fun", None)
    x = x.astype(np.uint8) if x.dtype == bool else x
    samples, batch_size = positive_int(samples, "bits_per_dim: samples"), positive_int(batch_size, "bits_per_dim: batch_size")
    event, context_shape = x.shape[1:], as_context(getattr(fit, "context_dim", None))
    check_pixels(x, levels_of(init_fun, event, context_shape))
    check_inside(x, init_fun, event, context_shape)
    rows, key = len(x), as_key(rng)
    context_of = contexts(fit, context, rows, "bits_per_dim")
    log_ps, together = list[np.ndarray](), min(batch_size, rows)
    # The last piece is filled up with the first images, as another size would compile another program.
    for i, index in enumerate(np.arange(-(-rows // together) * together).reshape(-1, together) % rows):
        piece = on_device(x[index], float)
        draws = [
            np.asarray(log_pdf(fit[0], piece, rng=draw_key, **context_of(index)), float)
            for draw_key in jax.random.split(jax.random.fold_in(key, i), samples)
        ]
        log_ps.append(np.logaddexp.reduce(draws, 0) - math.log(samples))
    bits = -np.concatenate(log_ps)[:rows] / (size(x.shape[1:]) * math.log(2))
    mean = float(bits.mean())
    return Bits(mean, float(bits.std(ddof=1) / rows**0.5) if rows > 1 and math.isfinite(mean) else math.nan, bits)


def contexts(fit: Any, context: Any, rows: int, name: str) -> Callable[[Any], dict[str, Any]]:
    """Return a function from an index of rows to their context as a keyword, one for each row or one for all."""
    if context is None:
        return lambda index: {}
    array, shape = np.asarray(context), as_context(getattr(fit, "context_dim", None))
    if shape is None:  # a triple, whose log_pdf checks the shape
        shape = array.shape[1:] if array.ndim > 1 and len(array) == rows else array.shape
    if array.shape == shape:
        return lambda index: {"context": array}
    contexts_ = np.asarray(as_rows_of_context(on_device(array), shape, rows, name))
    return lambda index: {"context": contexts_[index]}


def levels_of(init_fun: Any, event: Shape, context: Shape | None) -> int | None:
    """Return the number of levels of the layer that dequantises images in steps of 1, or of codes; None where they have no
    end."""
    if not isinstance(init_fun, DistributionInit):
        raise TypeError(f"bits_per_dim: fit has the init_fun {init_fun!r:.60}; expected a result of flows.fit")
    region = distribution_part(init_fun, event, context).region
    if region is not None and region.discrete.all():  # masses already
        return int(region.classes.max()) or None
    roundings = _dequantized(init_fun)
    if roundings is None or any(not np.all(np.asarray(rounding.step) == 1) for rounding in roundings):
        raise FlowsError(
            f"bits_per_dim: {init_fun!r:.120} has no Dequantize(1.0), and a density has no bits; fit whole numbers with "
            "dequantize=1.0, or put that layer first"
        )
    return min((rounding.levels for rounding in roundings if rounding.levels is not None), default=None)


def _dequantized(init_fun: Any) -> list[Rounding] | None:
    """Return the rounding of the layer that dequantises, if only layers that move entries come before it in a model; for a
    mixture, the roundings of all components. None without such a layer."""
    layers, base = chain_of(init_fun)
    for layer in layers:
        rounding = traits_by(layer.value).rounding
        if rounding is not None and not layer.inverted:
            return [rounding]
        if not layer.declared.moves_entries:
            return None
    structure = structure_of(base)
    if not structure.of_components:
        return None
    components = [_dequantized(piece.value) for piece in structure.pieces]
    return None if None in components else [rounding for roundings in components for rounding in roundings or ()]


def check_pixels(x: np.ndarray, levels: int | None) -> None:
    """Refuse images that are not whole numbers 0 .. levels - 1."""
    if x.ndim < 2 or not x.size:
        raise FlowsError(f"bits_per_dim: images have shape {x.shape}; expected (images, *event), with at least one image")
    if x.dtype.kind not in "iuf" or not np.isfinite(x).all() or not np.equal(np.mod(x, 1), 0).all():
        raise FlowsError("bits_per_dim: images are not whole numbers; expected pixels 0, 1, 2, ..., not floats in [0, 1]")
    if x.min() < 0 or (levels is not None and x.max() >= levels):
        expected = "0 or more" if levels is None else f"0 .. {levels - 1}"
        raise FlowsError(f"bits_per_dim: images reach from {x.min()!s} to {x.max()!s}; expected whole numbers {expected}")


def check_inside(x: np.ndarray, init_fun: Any, event: Shape, context: Shape | None) -> None:
    """Refuse images without a density, which lie where the layers of a model are not defined; outside the box of a base they
    have infinitely many bits."""
    try:
        layers = chain_of(init_fun)[0]
        low, high = support_of(layers, event, context)[0] if layers else support(init_fun, event, context or 0).inputs
    except FlowsError:  # a model whose support is not known
        return
    if (x.min(0) < low).any() or (x.max(0) > high).any():
        rows, *entry = np.argwhere((x < low) | (x > high))[0]
        ends = ", ".join(f"{np.broadcast_to(end, x.shape[1:])[tuple(entry)]:g}" for end in (low, high))
        raise FlowsError(
            f"bits_per_dim: images: image {rows} has a pixel of {x[rows, *entry]!s}, outside ({ends}), where the model has no "
            "density; expected pixels like the images that it was fitted to"
        )


def typicality(
    fit: Any, x: Any, reference: Any, group: int = 1, *, context: Any = None, reference_context: Any = None, rng: Any = 0
) -> np.ndarray:
    """Typicality of rows for a model: p-values of the distance of their likelihood from the usual one, in either direction.

    The mean of -log p over a group of rows is compared with its mean over the reference, in absolute value, and the p-value is
    the share of such groups of the reference, drawn with replacement, that are as far off or farther, (1 + #) / (1 + draws).
    Likelihood alone misleads: other data, above all smoother data, may be likelier than the training data of a model.

    Args:
        fit: a fitted model, or the triple of a distribution.
        x: rows to judge, (rows, *event).
        reference: rows like the training rows, which the model was not trained on.
        group: rows that are judged together: the first `group` rows, the next, ...; a remainder is not judged.
        context, reference_context: for a conditional model, (rows, *context), or (*context,) for all.
        rng: key or seed of the groups of the reference.

    Returns:
        p-values, (rows // group,); NaN where a density is NaN.

    Errors:
        FlowsError: fewer rows than a group; a row of the reference without a finite density.

    Source:
        Nalisnick, Matsukawa, Teh and Lakshminarayanan, "Detecting Out-of-Distribution Inputs to Deep Generative Models Using
        Typicality", 2019, arXiv:1906.02994.

    Example:
        >>> import flows, numpy as np
        >>> normal, rows = flows.Normal()(0, 50), np.random.default_rng(0).normal(size=(1000, 50))
        >>> flows.diagnostics.typicality(normal, np.zeros((1, 50)), rows).round(3).tolist()    # the likeliest row of all
        [0.001]
    """
    log_pdf, _ = functions("typicality", fit)
    group = positive_int(group, "typicality: group")
    surprises = _surprise(fit, log_pdf, np.asarray(x), context, "typicality: x")
    usual = _surprise(fit, log_pdf, np.asarray(reference), reference_context, "typicality: reference")
    if len(surprises) < group or len(usual) < max(group, 2):
        raise FlowsError(
            f"typicality: x has {len(surprises)} rows and reference {len(usual)}; expected at least {group} and {max(group, 2)}"
        )
    if not np.isfinite(usual).all():
        row = int(np.argmin(np.isfinite(usual)))
        raise FlowsError(
            f"typicality: the log-density of row {row} of the reference is {-usual[row]}; expected rows in its support"
        )
    entropy, groups = usual.mean(), usual if group == 1 else generator(rng).choice(usual, (DRAWS, group)).mean(1)
    far = np.sort(np.abs(groups - entropy))
    off = np.abs(surprises[: len(surprises) // group * group].reshape(-1, group).mean(1) - entropy)
    return np.where(np.isnan(off), np.nan, (1 + len(far) - np.searchsorted(far, off, side="left")) / (1 + len(far)))


def _surprise(fit: Any, log_pdf: Any, rows: np.ndarray, context: Any, name: str) -> np.ndarray:
    """Return -log p of rows, in pieces."""
    context_of = contexts(fit, context, len(rows), name)
    pieces = pieces_of(len(rows), rows.shape[1:])
    surprises = [-np.asarray(log_pdf(fit[0], rows[piece], **context_of(piece)), float) for piece in pieces]
    return np.concatenate(surprises) if surprises else np.zeros(0)
