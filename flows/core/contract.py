"""The contract: what an init_fun returns, and the forms of its functions.

params, direct_fun, inverse_fun = init_fun(rng, input_dim=5)      # a bijection
params, log_pdf, sample         = init_fun(rng, input_dim=5)      # a distribution
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

Array = jax.Array
Params = Any  # a pytree of float arrays; leaves under the dict key "fixed" do not train
Shape = tuple[int, ...]
Triple = TypeVar("Triple", covariant=True)

# The keywords of an init and of a call, and their defaults. An author's function receives only the keywords that it names.
INIT = ("context_dim", "init_inputs", "init_context", "params")
CALL = ("context", "rng", "train")
DEFAULTS: dict[str, Any] = dict.fromkeys(INIT + CALL) | {"context_dim": 0, "train": False}

LIKELIHOODS = ("exact", "unbiased", "lower bound")  # from the strongest claim to the weakest


class Transform(Protocol):
    """A direct or an inverse function of a batch (batch, *event).

    The log-determinants, (batch,), belong to the function that is called, in nats.
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


class InitFun(Protocol[Triple]):
    """Maker of a model's params and functions: a constructor's value, or a plain function. It may name keywords of `INIT`."""

    def __call__(self, rng: Any, input_dim: Any, /) -> Triple: ...


class Conditioner(Protocol):
    """Maker of a network, a constructor's value or a plain function: it returns params and `apply_fun(params, inputs)`."""

    def __call__(self, rng: Any, input_dim: Any, output_dim: Any, /) -> tuple[Params, Callable]: ...


class Bijection(NamedTuple):
    """Result of the init of a bijection.

    `direct_fun(params, inputs) -> (outputs, log_det)` runs from data to noise, `inverse_fun(params, outputs) ->
    (inputs, log_det)` back; `log_det` (batch,) is log|det J| in nats of the function that was called.
    """

    params: Params
    direct_fun: Transform
    inverse_fun: Transform

    def __repr__(self) -> str:
        return _summary(self)


class Distribution(NamedTuple):
    """Result of the init of a distribution.

    `log_pdf(params, inputs) -> (batch,)` in nats, and `sample(rng, params, num_samples=1) -> (num_samples, *event)`.
    """

    params: Params
    log_pdf: LogPdf
    sample: Sample

    def __repr__(self) -> str:
        return _summary(self)


def _summary(triple: Any) -> str:
    """A triple in one line: its params may hold millions of numbers."""
    leaves = jax.tree.leaves(triple.params)
    numbers = sum(int(np.size(leaf)) for leaf in leaves)
    return f"{type(triple).__name__}(params of {numbers:,} numbers in {len(leaves)} arrays, {', '.join(triple._fields[1:])})"


BijectionLike = InitFun[tuple[Params, Transform, Transform]]
DistributionLike = InitFun[tuple[Params, LogPdf, Sample]]
ConditionerLike = Conditioner
Numbers = float | Sequence[Any] | np.ndarray | Array


class Layer(NamedTuple):
    """Result of the init of a layer where `(params, direct_fun, inverse_fun)` is not enough.

    Attributes:
        params, direct, inverse: the triple.
        inverse_and_log_det: the inverse together with minus the log-det of `direct` at the point that it returns, where the
            two share work.
        velocity: `velocity(params, t, x) -> dx/dt` of a layer whose points follow a differential equation, t being 1 at the
            data and 0 at the noise; `flows.objectives.flow_matching` trains it.
        keywords: which of context, rng and train the functions receive, if they name them; by default all that they name.
    """

    params: Params
    direct: Callable
    inverse: Callable
    inverse_and_log_det: Callable | None = None
    velocity: Callable | None = None
    keywords: Iterable[str] = ()


class Given(NamedTuple):
    """The data of a call of an init, and the params that it refreshes."""

    init_inputs: Array | None = None
    init_context: Array | None = None
    params: Params | None = None
