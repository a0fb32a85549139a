"""Parts: a model at one event shape and one context shape, as combinators compose it.

A part is made once for each constructor's value and cached (`decorators.py`). It has `init(key, data) -> params`, and functions
of params alone, which take whole batches of one dtype and check nothing; `publish.py` makes the functions for users from them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.core.caching import Memo, assigned
from flows.core.contract import INIT, Array, Given, Params, Shape
from flows.core.errors import FlowsError
from flows.core.inputs import KEY, holds_tracer, named_by, on_device, select
from flows.core.params import abstract
from flows.core.support import Region

COLUMN = (1,)  # the event of one column

made_once = Memo(size=4096)  # the part of each value at each event and context


class Cdf(NamedTuple):
    """The distribution function of one column, and its inverse.

    `tail(params, x, context, upper)` is P(X <= x), or P(X > x) where upper, of rows (n,), with contexts of rows or None;
    `point(params, u, context, upper)` is the x whose tail is u. The distribution lives within `support`. Where both need
    numbers for each row that do not depend on x, `known(params, rows, context)` computes them for any array (n,), and both
    take them as a fifth argument, or compute them themselves.
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
        init: `init(key, data) -> params`.
        event, context: the shapes that it was made for; context is None in a model without a context.
        keywords: all keywords of the vocabulary that its init or its functions name.
        compiled: whether its functions can be traced.
        closures: the plain closures in it, in order: init makes their functions, so that the part serves one init alone.
        draws: the directions, "direct" and "inverse", in which `rng` does more than make the log-det an estimate: a layer may
            draw points. "direct" of a distribution is its log-density.
        likelihood: the kind of its log-density, 'exact', 'unbiased' or 'lower bound', as in its constructor's value.
        independent: whether a row's result depends on this row alone, in calls without rng and train; False with functions of
            batches that a user wrote, a plain closure or a network.
        divisible: whether each device may see its part of a batch with train=True: `meshes.joined_moments` joins what the
            functions measure.
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
    draws: frozenset[str] = field(default=frozenset(), kw_only=True)
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

    `output` is the event of y. `native_inverse(...) -> (x, log_det)` exists where the inverse is the cheap direction.
    `path(params, x, context, rng) -> (x_1, velocity)` exists where points follow an ordinary differential equation from the
    data, x_1 at time 1, to the noise at time 0: velocity(t, x_t) is dx_t / dt.
    """

    direct: Callable
    inverse: Callable
    output: Shape
    native_inverse: Callable | None = None
    path: Callable | None = None

    def invert(self, params: Params, y: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        """The inverse with its log-det: minus the log-det of `direct` at the point returned, so that the two agree."""
        if self.native_inverse is not None:
            return self.native_inverse(params, y, context, rng, train)
        x = self.inverse(params, y, context, rng, train)
        return x, -self.direct(params, x, context, rng, train)[1]

    def measured_output(self, params: Params, x: Array, context: Any, key: Array) -> Array:
        """Data that init measures, as the next layer sees them."""
        return self._outputs(params, x, context, key if "rng" in self.keywords else None)

    @cached_property
    def _outputs(self) -> Callable:
        def outputs(params: Params, x: Array, context: Any, rng: Any) -> Any:
            return self.direct(params, x, context, rng, False)[0]

        return jax.jit(outputs) if self.compiled else outputs


@dataclass(frozen=True, eq=False)
class DistributionPart(Part):
    """`log_pdf(params, x, context, rng, train) -> (batch,)` and `sample(rng, params, n, dtype, context) -> (n, *event)`.

    `joint_draw(rng, params, n, dtype, context) -> (samples, log_pdf)` exists where one pass makes both. `region` is where its
    points live, as far as it is declared. `path(params, x, context, rng) -> (x_1, velocity, draw)` is as in a bijection, and
    draw(key) makes as many draws x_0 of the base. `cdf()` exists for one column, and returns its distribution function, or
    None where it is not known. `embed(params, context)` is the context as the distribution within it sees it; `one_context`
    tells that its functions of rows take one row of context for all.
    """

    log_pdf: Callable
    sample: Callable
    joint_draw: Callable | None = None
    region: Region | None = None
    path: Callable | None = None
    cdf: Callable[[], Cdf | None] | None = None
    embed: Callable[[Params, Array], Array] | None = None
    one_context: bool = False

    def draw(self, rng: Array, params: Params, n: int, dtype: Any, context: Any) -> tuple[Array, Array]:
        """Samples with their log-density."""
        if self.joint_draw is not None:
            return self.joint_draw(rng, params, n, dtype, context)
        x = self.sample(rng, params, n, dtype, context)
        return x, self.log_pdf(params, x, context, None, False)


def init_in_numpy(init_fun: Callable, part: Part, key: Array, data: Given) -> Params:
    """The params of an init that measures data in NumPy, and draws nothing; a compiled program calls it."""
    if data.init_inputs is None or data.params is not None:
        return part.init(key, data)
    names, like = named_by(init_fun, INIT), part.abstract_params()

    def measured(data: Given) -> Params:
        params = init_fun(None, part.event, **select(names, context_dim=part.context, **data._asdict()))[0]
        return jax.tree.map(lambda leaf, like: np.asarray(leaf, like.dtype), params, like)

    if not holds_tracer(data):
        return jax.tree.map(on_device, measured(data))
    return jax.pure_callback(measured, like, data, vmap_method="sequential")


_exact: ContextVar[bool] = ContextVar("exact", default=False)


def exact_log_dets() -> AbstractContextManager[None]:
    """Trace without estimates of log-dets inside a `with`: keys are then for layers that draw."""
    return assigned(_exact, True)


def exact_on_request(part: BijectionPart) -> BijectionPart:
    """A part whose log-det is an estimate with `rng`, except within `exact_log_dets`."""

    def direct(params: Params, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        return part.direct(params, x, context, None if _exact.get() else rng, train)

    return replace(part, direct=direct)


def checked_draws(part: BijectionPart, ways: frozenset[str]) -> BijectionPart:
    """Return a part; refuse one that draws in other directions than it declares, or has no weight of a pair."""
    if part.draws != ways:
        raise FlowsError(
            f"{part.name}: it draws in the directions {', '.join(sorted(ways))}, and its functions that name rng are "
            f"{', '.join(sorted(part.draws)) or 'none'}; name rng where draws= says so"
        )
    if "direct" in ways and part.native_inverse is None:
        raise FlowsError(
            f"{part.name}: its direct function draws, so its inverse has to weigh the pair that it made: return a flows.Layer "
            "with inverse_and_log_det, whose second result is minus the log-weight of this pair"
        )
    return part


def as_surjection(part: BijectionPart) -> BijectionPart:
    """A part that draws: without rng its direct function takes the draw of key 0, the same for all rows, and an inverse that
    draws is refused."""
    ways = part.draws

    def direct(params: Params, x: Array, context: Any, rng: Any, train: bool) -> tuple[Array, Array]:
        if rng is not None or "direct" not in ways:
            return part.direct(params, x, context, rng, train)

        def of_row(x: Array, context: Any) -> tuple[Array, Array]:
            row = None if context is None else context[None]
            y, log_weight = part.direct(params, x[None], row, jax.random.key(0), train)
            return y[0], log_weight[0]

        return jax.vmap(of_row)(x, context)

    def asking(function: Callable | None) -> Callable | None:
        def call(params: Params, y: Array, context: Any, rng: Any, train: bool) -> Any:
            if rng is None:
                raise FlowsError(f"{part.name}: its inverse draws; give rng= to inverse_fun")
            return function(params, y, context, rng, train)  # type: ignore[misc]

        return call if function is not None and "inverse" in ways else function

    inverses = {name: asking(getattr(part, name)) for name in ("inverse", "native_inverse")}
    return replace(part, direct=direct, **inverses)  # type: ignore[arg-type]


def shared(parts: Sequence[Part]) -> dict[str, Any]:
    """The fields of a part composed of others: what any of them names and draws, and whether all can be traced."""
    common = {name: all([getattr(part, name) for part in parts]) for name in ("compiled", "independent", "divisible")}
    return common | {
        "keywords": frozenset().union(*[part.keywords for part in parts]),
        "closures": tuple([closure for part in parts for closure in part.closures]),
        "draws": frozenset().union(*[part.draws for part in parts]),
    }
