"""Named parameters: how a dict of arrays is laid out as vectors, to which models are fitted."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from flows.core import Array, FlowsError, Shape, as_array
from flows.results.frames import in_order

MOST = 10_000  # numbers, or names


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

    def natural(self, x: Array) -> dict[str, Array]:
        """Return vectors (..., size) as a dict of arrays (..., *shape)."""
        slices = self.slices
        return {name: x[..., slices[name]].reshape(*x.shape[:-1], *shape) for name, shape in self._shown}

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
