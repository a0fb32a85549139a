"""The result of a fit to a density: how far its importance weights can be believed; and its named parameters, a dict of arrays
that is laid out as vectors, to which models are fitted."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from flows.core import Array, FlowsError, Shape, as_array
from flows.objectives.importance import Estimate
from flows.results.frames import in_order
from flows.results.pictures.axes import Colours, set_heights
from flows.results.result import FitResult

DIAGNOSTICS = "diagnostics"  # the name of their tensor in a file
WEIGHT_BINS = 40
LEAST_ROOM = 0.05  # nats on each side of the weights, which hides the shape of rounding
TAIL = 0.002  # of the weights, beyond each end of the axis
REACH = 8.0  # standard deviations of the nearest Gaussian, or of N(0, 1), of the points from which modes are looked for
MOST = 10_000  # numbers of a point, or names


class Parameters(NamedTuple):
    """Names of parameters and their shapes, in the order in which a vector holds them."""

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]

    @classmethod
    def of(cls, shapes: Mapping, caller: str) -> "Parameters":
        """Make parameters of a dict from names to shapes, such as {"mu": (), "weights": (3, 2)}."""
        checked = list[Shape]()
        for name, described in shapes.items():
            if not isinstance(name, str) or not name:
                raise FlowsError(f"{caller}: a parameter is called {name!r:.60}; expected a text, such as 'mu'")
            shape = (described,) if isinstance(described, int | np.integer) and not isinstance(described, bool) else described
            whole = isinstance(shape, tuple | list) and all(
                isinstance(n, int | np.integer) and not isinstance(n, bool) and n > 0 for n in shape
            )
            if not whole:
                raise FlowsError(
                    f"{caller}: the shape of {name!r} is {described!r:.60}; expected a tuple of positive numbers, () for a "
                    "single number"
                )
            checked.append(tuple(map(int, shape)))
        parameters = cls(tuple(shapes), tuple(checked))
        if not checked or len(checked) > MOST or parameters.size > MOST:
            raise FlowsError(
                f"{caller}: there are {len(checked)} parameters of {parameters.size} numbers; expected 1 to {MOST:,} of each"
            )
        return parameters

    @property
    def size(self) -> int:
        """The length of a vector."""
        return sum(map(math.prod, self.shapes))

    @property
    def slices(self) -> dict[str, slice]:
        """The slice of a vector for each name."""
        ends = np.cumsum([0, *map(math.prod, self.shapes)]).tolist()
        return {name: slice(*pair) for name, pair in zip(self.names, pairwise(ends), strict=True)}

    def entries(self, count: int = 0) -> tuple[str, ...]:
        """Return the name of each number of a vector, such as "mu" or "weights[0, 1]"."""
        indices = [(name, index) for name, shape in self._shown for index in np.ndindex(shape)]
        return tuple(f"{name}[{', '.join(map(str, index))}]" if index else name for name, index in indices)

    def numbers(self, x: Any, what: str) -> Any:
        """Return rows as numbers: of a dict of arrays, or as they are."""
        return self.packed(x, what) if isinstance(x, Mapping) else in_order(x, None, what)

    def natural(self, x: Any) -> dict[str, Any]:
        """Return vectors (..., size) as a dict of arrays (..., *shape)."""
        slices = self.slices
        return {name: x[..., slices[name]].reshape((*x.shape[:-1], *shape)) for name, shape in self._shown}

    def packed(self, values: Any, what: str) -> Array:
        """Return a dict of arrays (n, *shape) as vectors (n, size)."""
        expected = ", ".join(f"{name!r}: {('n', *shape)}".replace("'n'", "n") for name, shape in self._shown)
        if not isinstance(values, Mapping) or set(values) != set(self.names):
            got = sorted(map(str, values)) if isinstance(values, Mapping) else f"{values!r:.60}"
            raise FlowsError(f"{what} is {got}; expected a dict of arrays {expected}")
        arrays = [as_array(values[name], f"{what}[{name!r}]") for name in self.names]
        rows = {array.shape[0] if array.ndim else None for array in arrays}
        if len(rows) > 1 or None in rows or any(array.shape[1:] != self.shapes[i] for i, array in enumerate(arrays)):
            got = ", ".join(f"{name!r}: {array.shape}" for name, array in zip(self.names, arrays, strict=True))
            raise FlowsError(f"{what} has shapes {got}; expected {expected}")
        sizes = map(math.prod, self.shapes)
        return jnp.concatenate([array.reshape(len(array), size) for array, size in zip(arrays, sizes, strict=True)], 1)

    @property
    def _shown(self) -> list[tuple[str, Shape]]:
        return list(zip(self.names, self.shapes, strict=True))

    def described(self) -> list[list[Any]]:
        """Return names and shapes for JSON."""
        return [[name, list(shape)] for name, shape in self._shown]


class Diagnostics(NamedTuple):
    """Figures of the fit by importance weights w = p Z / q. Draws come from a mixture q: three quarters from the model, and a
    quarter from the model with its base 1.5 and 2.5 times as wide, which reaches into tails that the model lacks. Where several
    modes were found, 2% of the draws come from Gaussians there.

    Attributes:
        effective_sample_size: the number of draws of p itself that are worth as much, as a share: the lesser of 1 / (1 +
            num_samples standard_error^2) and (sum w)^2 / (n sum w^2) of the model's n draws alone.
        log_normalizer: `value` and `standard_error` of log Z, in nats.
        pareto_k: up to 0.7 these figures can be believed; above, the model misses too much of p.
        num_samples: the number of draws.
        modes: the number of modes that a search found; 0 without a search.
        starts: the number of points where the search began; 0 where the user gave the points.
    """

    effective_sample_size: float
    log_normalizer: Estimate
    pareto_k: float
    num_samples: int
    modes: int = 0
    starts: int = 0


class DensityFitResult(FitResult):
    """A distribution fitted to a density, `params, log_pdf, sample = result`.

    Attributes:
        diagnostics: a `Diagnostics`.
        log_weights: log w, in nats, of the draws behind `diagnostics`; None for a result from a file, or with other params.
        history: "train_loss" and "validation_loss", KL(q || p) - log Z after each epoch, in nats, and more as in `FitResult`.
            With `objective=` they are its values, and -2 log(int sqrt(p q)) - log Z in nats;
            without epochs where the start was good enough. A last round on weighted draws is not in it.
    """

    diagnostics: Diagnostics
    log_weights: np.ndarray | None

    def _weights(self) -> Any:
        if self.log_weights is None or not np.isfinite(self.diagnostics.log_normalizer.value):
            return None
        return lambda axes, shown: importance(axes, self.log_weights, self.diagnostics, shown)

    def _replace(self, **changes: Any) -> FitResult:  # type: ignore[override]
        stale = {"log_weights": None} if "params" in changes else {}
        return super()._replace(**{**stale, **changes})

    def _stored(self) -> dict[str, Any]:
        log_z = self.diagnostics.log_normalizer
        size, _, *rest = self.diagnostics
        return {**super()._stored(), DIAGNOSTICS: np.array([size, *log_z, *rest], np.float64)}

    def _summary(self) -> list[tuple[str, str]]:
        diagnostics, log_z = self.diagnostics, self.diagnostics.log_normalizer
        figures = (
            f"effective sample size {diagnostics.effective_sample_size:.3f}, log Z {log_z.value:.4f} +- "
            f"{log_z.standard_error:.4f}"
        )
        modes = f", {diagnostics.modes} mode{'s' * (diagnostics.modes > 1)} found" if diagnostics.modes else ""
        if diagnostics.starts:
            modes += f" from {diagnostics.starts} start{'s' * (diagnostics.starts > 1)}, at most {REACH:.0f} sd away"
        if getattr(self.init_fun, "likelihood", "exact") == "lower bound":
            modes = ", by paths of draws: modes that it misses are not known"
        return [*super()._summary(), ("  diagnostics", f"{figures}, Pareto k {diagnostics.pareto_k:.2f}{modes}")]


def importance(axes: Any, log_weights: np.ndarray, diagnostics: Diagnostics, shown: Colours) -> None:
    """Draw a histogram of log w - log Z in nats, 0 where model and target agree, with its figures as a title."""
    finite = log_weights[np.isfinite(log_weights)] - diagnostics.log_normalizer.value
    low, high = np.quantile(finite, (TAIL, 1 - TAIL))
    room = max(0.1 * (high - low), LEAST_ROOM)
    low, high = min(low, 0.0) - room, max(float(finite.max()), 0.0) + room  # the largest spoil estimates
    bins = np.linspace(low, high, WEIGHT_BINS + 1)
    heights = np.histogram(finite, bins)[0] / (len(log_weights) * np.diff(bins))
    axes.stairs(heights, bins, fill=True, color=shown.third, alpha=0.6)
    axes.axvline(0.0, color=shown.third, linewidth=1.0, linestyle="--")
    axes.set(xlim=(low, high), xlabel="log w - log Z, nats")
    # On a logarithmic scale, as few large weights matter.
    set_heights(axes, (0.5 / len(log_weights) / (bins[1] - bins[0]), 2 * heights.max()))
    axes.get_xaxis().get_major_locator().set_params(nbins=4)
    axes.set_title(
        f"importance weights, Pareto k {diagnostics.pareto_k:.2f}\neffective sample size "
        f"{diagnostics.effective_sample_size:.0%}",
        fontsize=9,
    )
