"""Parts: a model at one event shape and one context shape, as combinators compose it.

A part is made once for each constructor's value and kept (`decorators.py`). It has `init(key, given) -> params` and, beside
it, functions that depend on params alone. They take whole batches of one dtype and check nothing; what a user calls is made
of them in `publish.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import Any, NamedTuple

import jax

from flows.core.caching import Memo
from flows.core.contract import Array, Given, Params, Shape
from flows.core.inputs import KEY
from flows.core.params import abstract
from flows.core.support import Region

COLUMN = (1,)  # the event of one column

made_once = Memo(size=4096)  # the part of each value at each event and context


class Cdf(NamedTuple):
    """The distribution function of one column, and its inverse.

    `tail(params, x, context, upper)` is P(X <= x), or P(X > x) where upper, of rows (n,), with a context of each or None;
    `point(params, u, context, upper)` is the x whose tail is u. The distribution lives within `support`. Where both need
    something of each row that does not depend on x, `known(params, rows, context)` makes it of any array (n,), and both take it
    as a fifth argument, or make it themselves.
    """

    tail: Callable[[Any, Array, Any, Array], Array]
    point: Callable[[Any, Array, Any, Array], Array]
    support: tuple[float, float] = (-inf, inf)
    known: Callable[[Any, Array, Any], Any] | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """The common fields of the parts of bijections and of distributions.

    Attributes:
        name: for errors.
        init: `init(key, given) -> params`.
        event, context: the shapes that it was made for; context is None where there is none.
        keywords: all keywords of the vocabulary that its init or its functions name.
        compiled: whether its functions can be traced.
        closures: the plain closures in it, in order: their functions are made by its init, so that it serves one init alone.
        noisy: whether `rng` does more in it than make its log-det an estimate: its functions may draw points from it.
        likelihood: what its log-density is, 'exact', 'unbiased' or 'lower bound', as of the value that it is the part of.
        independent: whether a row's result is its own, in calls without rng and train; not known of what a user's own function
            makes of a batch, a plain closure or a network.
        divisible: whether a call with train=True may see a part of a batch, on each device: what it measures of a batch it
            brings together, by `meshes.joined_moments`.
    """

    name: str
    init: Callable[[Array, Given], Params]
    event: Shape
    context: Shape | None
    keywords: frozenset[str]
    compiled: bool
    closures: tuple[Any, ...]
    independent: bool = field(default=True, kw_only=True)
    divisible: bool = field(default=True, kw_only=True)
    noisy: bool = field(default=False, kw_only=True)
    likelihood: str = field(default="exact", kw_only=True)

    @property
    def measures(self) -> bool:
        """Tells whether its init looks at data."""
        return "init_inputs" in self.keywords

    def abstract_params(self) -> Params:
        """The shapes of the params that its init makes; an init that cannot be traced is run."""
        if not self.closures:
            return jax.eval_shape(self.init, KEY(), Given())
        with jax.ensure_compile_time_eval():
            return abstract(self.init(jax.random.key(0), Given()))


@dataclass(frozen=True, eq=False)
class BijectionPart(Part):
    """`direct(params, x, context, rng, train) -> (y, log_det)` and `inverse(params, y, context, rng, train) -> x`.

    `output` is the event of y. `native_inverse(...) -> (x, log_det)` is there where the inverse is the cheap direction.
    `path(params, x, context, rng) -> (x_1, velocity)` is there where points follow an ordinary differential equation from the
    data, x_1 at time 1, to the noise at time 0: velocity(t, x_t) is dx_t / dt.
    """

    direct: Callable
    inverse: Callable
    output: Shape
    native_inverse: Callable | None = None
    path: Callable | None = None

    def invert(self, params: Params, y: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        """The inverse with its log-det: minus the direct one at the point returned, so that the two cannot drift."""
        if self.native_inverse is not None:
            return self.native_inverse(params, y, context, rng, train)
        x = self.inverse(params, y, context, rng, train)
        return x, -self.direct(params, x, context, rng, train)[1]

    def measured_output(self, params: Params, x: Array, context: Any, key: Array) -> Array:
        """Data that init measures, as a later layer sees them."""
        return self._outputs(params, x, context, key if "rng" in self.keywords else None)

    @cached_property
    def _outputs(self) -> Callable:
        def outputs(params: Params, x: Array, context: Any, rng: Any) -> Array:
            y: Array = self.direct(params, x, context, rng, False)[0]
            return y

        return jax.jit(outputs) if self.compiled else outputs


@dataclass(frozen=True, eq=False)
class DistributionPart(Part):
    """`log_pdf(params, x, context, rng, train) -> (batch,)` and `sample(rng, params, n, dtype, context) -> (n, *event)`.

    `joint_draw(rng, params, n, dtype, context) -> (samples, log_pdf)` is there where one pass makes both. `region` is where its
    points live, as far as it is told. `path(params, x, context, rng) -> (x_1, velocity, draw)` is as of a bijection, and
    draw(key) are as many draws of the base, x_0. `cdf()` is there for one column, and makes its distribution function, or None
    where the map does not give it.
    """

    log_pdf: Callable
    sample: Callable
    joint_draw: Callable | None = None
    region: Region | None = None
    path: Callable | None = None
    cdf: Callable[[], Cdf | None] | None = None

    def draw(self, rng: Array, params: Params, n: int, dtype: Any, context: Any) -> tuple[Array, Array]:
        """The samples of `sample`, with their log-density."""
        if self.joint_draw is not None:
            return self.joint_draw(rng, params, n, dtype, context)
        x = self.sample(rng, params, n, dtype, context)
        return x, self.log_pdf(params, x, context, None, False)


_exact: ContextVar[bool] = ContextVar("exact", default=False)


@contextmanager
def exact_log_dets() -> Iterator[None]:
    """Trace within without estimates of log-dets, whatever keys are handed: these are for layers that draw."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


def exact_on_request(part: BijectionPart) -> BijectionPart:
    """A part whose log-det `rng` makes an estimate, but within `exact_log_dets`."""

    def direct(params: Params, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        return part.direct(params, x, context, None if _exact.get() else rng, train)

    return replace(part, direct=direct)


def shared(parts: Sequence[Part]) -> dict[str, Any]:
    """The fields of a part that is composed of others: what any of them names and draws, and whether all can be traced."""
    of_all = {name: all([getattr(part, name) for part in parts]) for name in ("compiled", "independent", "divisible")}
    return of_all | {
        "keywords": frozenset().union(*[part.keywords for part in parts]),
        "closures": tuple([closure for part in parts for closure in part.closures]),
        "noisy": any([part.noisy for part in parts]),
    }
