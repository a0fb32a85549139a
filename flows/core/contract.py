"""The contract: what an init_fun returns, and the forms of its functions.

params, direct_fun, inverse_fun = init_fun(rng, input_dim=5)      # a bijection
params, log_pdf, sample         = init_fun(rng, input_dim=5)      # a distribution
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

Array = jax.Array
Params = Any  # a pytree of float arrays; leaves under the dict key "fixed" do not train
Shape = tuple[int, ...]
LIKELIHOODS = ("exact", "unbiased", "lower bound")  # from the strongest claim to the weakest


class Transform(Protocol):
    """A direct or an inverse function of a batch (batch, *event).

    The log-determinants, (batch,), are those of the function that is called, in nats.
    """

    def __call__(
        self, params: Params, inputs: Any, *, context: Any = None, rng: Any = None, train: bool = False
    ) -> tuple[Array, Array]: ...


class LogPdf(Protocol):
    """The log-density of each row, (batch,), in nats."""

    def __call__(self, params: Params, inputs: Any, *, context: Any = None, rng: Any = None, train: bool = False) -> Array: ...


class Sample(Protocol):
    """Draws, (num_samples, *event)."""

    def __call__(self, rng: Any, params: Params, num_samples: int = 1, *, context: Any = None) -> Array: ...


class Bijection(NamedTuple):
    """What the init of a bijection returns.

    `direct_fun(params, inputs) -> (outputs, log_det)` runs from data to noise, `inverse_fun(params, outputs) ->
    (inputs, log_det)` back; `log_det` (batch,) is log|det J| in nats of the function that was called.
    """

    params: Params
    direct_fun: Transform
    inverse_fun: Transform

    def __repr__(self) -> str:
        return _told(self)


class Distribution(NamedTuple):
    """What the init of a distribution returns.

    `log_pdf(params, inputs) -> (batch,)` in nats, and `sample(rng, params, num_samples=1) -> (num_samples, *event)`.
    """

    params: Params
    log_pdf: LogPdf
    sample: Sample

    def __repr__(self) -> str:
        return _told(self)


def _told(triple: Any) -> str:
    """A triple in a line: its params may be millions of numbers."""
    leaves = jax.tree.leaves(triple.params)
    numbers = sum(int(np.size(leaf)) for leaf in leaves)
    return f"{type(triple).__name__}(params of {numbers:,} numbers in {len(leaves)} arrays, {', '.join(triple._fields[1:])})"


# What combinators and `fit` take: a constructor's value, or a plain closure that returns such a triple; and a network.
BijectionLike = Callable[..., tuple[Params, Transform, Transform]]
DistributionLike = Callable[..., tuple[Params, LogPdf, Sample]]
ConditionerLike = Callable[..., tuple[Params, Callable]]
Numbers = float | Sequence[Any] | np.ndarray | Array


class Given(NamedTuple):
    """The data that an init was called with, and the params that are to be refreshed."""

    init_inputs: Array | None = None
    init_context: Array | None = None
    params: Params | None = None


class Region(tuple):
    """Where entries live: the pair (low, high) of the ends between which they lie, numbers or arrays of the event.

    Attributes:
        period: of an angle, which is any real number modulo its period; 0 of what is none. A number, or one for each entry.
        sphere: 0 where an entry is a number of its own, k where it is a coordinate of the k-th unit vector of the event.
    """

    period: Any
    sphere: Any

    def __new__(cls, low: Any, high: Any, period: Any = 0.0, sphere: Any = 0) -> "Region":
        self = super().__new__(cls, (low, high))
        self.period, self.sphere = period, sphere
        return self

    def __getnewargs__(self) -> tuple:
        return *self, self.period, self.sphere

    @property
    def flat(self) -> bool:
        """Whether no entry is an angle, or a coordinate of a sphere."""
        return not (np.any(self.period) or np.any(self.sphere))


REAL = Region(-np.inf, np.inf)
POSITIVE = Region(0.0, np.inf)
UNIT = Region(0.0, 1.0)
CIRCLE = Region(-np.inf, np.inf, period=2 * np.pi)
SPHERE = Region(-1.0, 1.0, sphere=1)  # the event is one unit vector


class Support(NamedTuple):
    """Where the inputs and the outputs of a bijection live, or the points of a distribution (its inputs, which are then its
    outputs too).

    Each is a `Region`, a pair (low, high), or a function of the event that returns one. A map that is `entrywise` has no
    params, and makes each entry of the output of the same entry of the input alone. `keeps` says what of angles and unit
    vectors it leaves as it finds it, where it mixes entries or trains: "spheres" a rotation; "entries" a permutation or a
    layout, which only moves entries; or the columns that it does not touch, by number, or a function that gives them of how
    many there are.
    """

    inputs: Any = REAL
    outputs: Any = REAL
    entrywise: bool = False
    keeps: Any = ()
