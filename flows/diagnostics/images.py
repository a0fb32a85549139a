"""Figures of images by a model: bits for each number, and how typical images are."""

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
    as_context,
    as_key,
    as_rows_of_context,
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

DRAWS = 10_000  # of groups of the reference, by which groups are judged


class Bits(NamedTuple):
    """Bits for each number of an image: the mean over images, its standard error, and those of each, (images,)."""

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
    """How many bits a model takes for each number of images: -log2 P(x) / D, at most.

    P(x) is the mass that a dequantised model gives to the cell around x, D the numbers of an image. By the mean of the density
    over `samples` draws of the noise, -log2 of which is more than that of the mass in the mean, and less so with more samples.

    Args:
        fit: what `flows.fit` returned for a model that dequantises: `Dequantize(1.0)` in it, or `dequantize=1.0`.
        images: whole numbers 0, 1, ..., (images, *event).
        context: (images, *context), or (*context,) for all, of a conditional model.
        rng: key or seed of the noise.
        samples: draws of the noise for each image.
        batch_size: images that are scored together.

    Errors:
        FlowsError: images that are no whole numbers, or beyond the model's levels or support; a model without
            `Dequantize(1.0)`.
        TypeError: no fitted model.

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
    check_pixels(x, levels_of(init_fun))
    check_inside(x, init_fun, fit)
    rows, key = len(x), as_key(rng)
    context_of = contexts(fit, context, rows, "bits_per_dim")
    log_ps, together = list[np.ndarray](), min(batch_size, rows)
    # The last piece is filled up with the first images, as another size would be another program.
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
    """A function of an index of rows that gives their context as a keyword, be it of each or one for all."""
    if context is None:
        return lambda index: {}
    array, shape = np.asarray(context), as_context(getattr(fit, "context_dim", None))
    if shape is None:  # a triple, which does not tell: its log_pdf does
        shape = array.shape[1:] if array.ndim > 1 and len(array) == rows else array.shape
    if array.shape == shape:
        return lambda index: {"context": array}
    of_rows = np.asarray(as_rows_of_context(on_device(array), shape, rows, name))
    return lambda index: {"context": of_rows[index]}


def levels_of(init_fun: Any) -> int | None:
    """The levels of the layer that dequantises images in steps of 1; None where they have no ends."""
    if not isinstance(init_fun, DistributionInit):
        raise TypeError(f"bits_per_dim: fit has the init_fun {init_fun!r:.60}; expected what flows.fit returned")
    roundings = _dequantized(init_fun)
    if roundings is None or any(not np.all(np.asarray(rounding.step) == 1) for rounding in roundings):
        raise FlowsError(
            f"bits_per_dim: {init_fun!r:.120} has no Dequantize(1.0), and a density has no bits; fit whole numbers with "
            "dequantize=1.0, or put that layer first"
        )
    return min((rounding.levels for rounding in roundings if rounding.levels is not None), default=None)


def _dequantized(init_fun: Any) -> list[Rounding] | None:
    """Return the levels that the layer of noise takes pixels for, if it comes first in a model, but for what moves entries; or
    those of each component of a mixture. None where there is none."""
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
    of_components = [_dequantized(piece.value) for piece in structure.pieces]
    return None if None in of_components else [rounding for roundings in of_components for rounding in roundings or ()]


def check_pixels(x: np.ndarray, levels: int | None) -> None:
    """Refuse what are no whole numbers 0 .. levels - 1."""
    if x.ndim < 2 or not x.size:
        raise FlowsError(f"bits_per_dim: images have shape {x.shape}; expected (images, *event), with at least one image")
    if x.dtype.kind not in "iuf" or not np.isfinite(x).all() or not np.equal(np.mod(x, 1), 0).all():
        raise FlowsError("bits_per_dim: images are not whole numbers; expected pixels 0, 1, 2, ..., not floats in [0, 1]")
    if x.min() < 0 or (levels is not None and x.max() >= levels):
        expected = "0 or more" if levels is None else f"0 .. {levels - 1}"
        raise FlowsError(f"bits_per_dim: images reach from {x.min()!s} to {x.max()!s}; expected whole numbers {expected}")


def check_inside(x: np.ndarray, init_fun: Any, fit: Any) -> None:
    """Refuse images of which a model has no density, as they lie where its layers are not defined; beside the box of a base
    they have infinitely many bits."""
    event, context = x.shape[1:], as_context(getattr(fit, "context_dim", None))
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
            "density; expected pixels like those that it was fitted to"
        )


def typicality(
    fit: Any, x: Any, reference: Any, group: int = 1, *, context: Any = None, reference_context: Any = None, rng: Any = 0
) -> np.ndarray:
    """How typical rows are of a model: p-values of their likelihood being as far from the usual one, either way.

    The mean of -log p over a group of rows is compared with its mean over the reference, in absolute value, and the p-value is
    the share of such groups of the reference, drawn with replacement, that are as far off or farther, (1 + #) / (1 + draws).
    Likelihood alone misleads: other data, smoother ones above all, may be likelier than those that a model was trained on.

    Args:
        fit: a fitted model, or a triple of a distribution.
        x: rows to judge, (rows, *event).
        reference: rows like those that the model was trained on, and was not trained on.
        group: rows that are judged together: the first so many, the next, ...; what is left over is not judged.
        context, reference_context: of a conditional model, (rows, *context), or (*context,) for all.
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
            f"typicality: the log-density of row {row} of the reference is {-usual[row]}; expected rows that the model knows"
        )
    entropy, groups = usual.mean(), usual if group == 1 else generator(rng).choice(usual, (DRAWS, group)).mean(1)
    far = np.sort(np.abs(groups - entropy))
    off = np.abs(surprises[: len(surprises) // group * group].reshape(-1, group).mean(1) - entropy)
    return np.where(np.isnan(off), np.nan, (1 + len(far) - np.searchsorted(far, off, side="left")) / (1 + len(far)))


def _surprise(fit: Any, log_pdf: Any, rows: np.ndarray, context: Any, name: str) -> np.ndarray:
    """-log p of rows, in pieces."""
    context_of = contexts(fit, context, len(rows), name)
    pieces = pieces_of(len(rows), rows.shape[1:])
    surprises = [-np.asarray(log_pdf(fit[0], rows[piece], **context_of(piece)), float) for piece in pieces]
    return np.concatenate(surprises) if surprises else np.zeros(0)
