"""Draws of a model, and of the model with a wider base, which reach into tails that the model lacks."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from flows.compose import joined
from flows.core import Array, Distribution, Shape, bijection_part, distribution_part, functions_of, leading, size
from flows.distributions.draws import sample_with_log_pdf

WIDTHS = (1.0, 1.5, 2.5)  # of the base
SHARES = (0.75, 0.125, 0.125)  # of the draws


class Points(NamedTuple):
    """Points of several components, ordered by component: x (n, *event), log_q (components, n), the log-density of each
    component at each point, and counts, the number of points of each component."""

    x: np.ndarray
    log_q: np.ndarray
    counts: tuple[int, ...]

    @property
    def log_mixture(self) -> np.ndarray:
        """The log-density of the mixture of the components, by their shares of the points, (n,) [Veach and Guibas,
        "Optimally Combining Sampling Techniques for Monte Carlo Rendering", 1995, section 3.4]."""
        total: np.ndarray = logsumexp(self.log_q + np.log(np.array(self.counts) / len(self.x))[:, None], 0)
        return total


class Drawing:
    """Draws of a model and scores of points, in pieces of `together` points, so that each program is compiled once.

    A wider base is a wider noise: a mixture of normals widens around each mean, any other base around its location. A model on
    a circle or a sphere, or with a bounded base, stays as it is.
    """

    def __init__(self, init_fun: Any, event: Shape, together: int):
        self.init_fun, self.together = init_fun, together
        *way, base = leading(init_fun, opening=False)
        self.layers = bijection_part(joined([stage.value for stage in way]), event, None) if way else None
        self.base = distribution_part(base.value, event if self.layers is None else self.layers.output, None)
        region = distribution_part(init_fun, event, None).region
        endless = self.base.region is None or bool(
            np.isinf(self.base.region.low).all() and np.isinf(self.base.region.high).all()
        )
        flat = endless and (region is None or region.flat)
        self.widths: tuple[float, ...] = WIDTHS if flat else WIDTHS[:1]

    def of(self, triple: Distribution, key: Array, n: int, widths: int = len(WIDTHS)) -> Points:
        """n draws, with the first `widths` widths of the base."""
        if len(self.widths) == 1:
            return self._model_draws(triple, key, n)
        layer_params, bases = self._parts(triple.params, widths)
        counts = [math.floor(share * n) for share in SHARES[1 : len(bases)]]
        counts = [n - sum(counts), *counts]
        noise = []
        for i, (count, base) in enumerate(zip(counts, bases, strict=True)):
            keys = jax.random.split(jax.random.fold_in(key, i), -(-count // self.together))
            noise.append(np.concatenate([base.draw(piece_key, self.together) for piece_key in keys])[:count])
        z = np.concatenate(noise)
        x, log_det = self._mapped(1, layer_params, z)
        return Points(x, np.stack([base.log_pdf(z) for base in bases]) - log_det, tuple(counts))

    def scored(self, triple: Distribution, x: np.ndarray, widths: int = len(WIDTHS)) -> np.ndarray:
        """The log-density of the model, and of the model with wider bases, at points, (widths, n)."""
        if len(self.widths) == 1:
            return np.asarray(triple.log_pdf(triple.params, x), float)[None]
        layer_params, bases = self._parts(triple.params, widths)
        z, log_det = self._mapped(0, layer_params, x)
        return np.stack([base.log_pdf(z) for base in bases]) + log_det

    def _model_draws(self, triple: Distribution, key: Array, n: int) -> Points:
        keys = [jax.random.fold_in(key, i) for i in range(-(-n // self.together))]
        drawn = [sample_with_log_pdf(piece_key, triple.params, triple, self.together) for piece_key in keys]
        x, log_q = (np.concatenate([np.asarray(piece[j]) for piece in drawn])[:n] for j in (0, 1))
        return Points(x, log_q.astype(float)[None], (n,))

    def _parts(self, params: Any, widths: int) -> tuple[tuple, list["Base"]]:
        """The params of the layers, and the base at each width."""
        *way, base = leading(self.init_fun, params, opening=False)
        functions = functions_of(self.base, base.params)
        return tuple(stage.params for stage in way), [Base.of(*functions, base.params, by) for by in self.widths[:widths]]

    def _mapped(self, way: int, layer_params: tuple, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points mapped by the layers, to the noise (way 0) or from it (way 1), and the log-det there."""
        if self.layers is None:
            return x, np.zeros(len(x))
        params = layer_params[0] if len(layer_params) == 1 else layer_params
        function, mapped = functions_of(self.layers, params)[way], []
        for i in range(0, len(x), self.together):
            piece = x[i : i + self.together]
            outputs = function(params, np.resize(piece, (self.together, *piece.shape[1:])))
            mapped.append([np.asarray(output)[: len(piece)] for output in outputs])
        y, log_det = (np.concatenate(pieces) for pieces in zip(*mapped, strict=True))
        return y, log_det.astype(float)


class Base(NamedTuple):
    """A base, `by` times as wide around its centre; a mixture of normals has wider params instead. Draws and densities use the
    same params, so that they agree for any base."""

    density: Callable
    sample: Callable
    params: Any
    centre: Any
    by: float

    @classmethod
    def of(cls, log_pdf: Callable, sample: Callable, params: Any, by: float) -> "Base":
        named = params if isinstance(params, dict) else {}
        centre, numbers = np.asarray(named["loc"]) if "loc" in named else 0.0, named.get("fixed", named)
        if by == 1 or not {"mean", "logits"} <= set(numbers):
            return cls(log_pdf, sample, params, centre, by)
        log_by = math.log(by)
        if "log_scale" in numbers:
            wider = {**numbers, "log_scale": numbers["log_scale"] + log_by}
        else:
            eye = jnp.eye(numbers["tril"].shape[1], dtype=numbers["tril"].dtype)
            wider = {**numbers, "tril": jnp.tril(by * numbers["tril"], -1) + eye[None] * (numbers["tril"] + log_by)}
        return cls(log_pdf, sample, {"fixed": wider} if "fixed" in named else wider, centre, 1.0)

    def draw(self, key: Array, n: int) -> np.ndarray:
        z = np.asarray(self.sample(key, self.params, n))
        return z if self.by == 1 else (self.centre + self.by * (z - self.centre)).astype(z.dtype)

    def log_pdf(self, z: np.ndarray) -> np.ndarray:
        if self.by == 1:
            return np.asarray(self.density(self.params, z), float)
        nearer = (self.centre + (z - self.centre) / self.by).astype(z.dtype)
        return np.asarray(self.density(self.params, nearer), float) - size(z.shape[1:]) * math.log(self.by)
