"""Is a layer really a bijection? `verify` checks it property by property."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.composition import regions_of
from flows.compose import Serial
from flows.core import (
    CALL,
    INIT,
    TRACING_ERRORS,
    Array,
    BijectionInit,
    BijectionLike,
    DistributionInit,
    FlowsError,
    as_array,
    as_context,
    as_dim,
    as_event,
    as_key,
    cast,
    check_rows,
    fresh_caches,
    inside,
    named_by,
    on_device,
    positive_int,
    select,
    trainable,
)
from flows.diagnostics.surjections import pairs_of
from flows.diagnostics.trial import RowByRow, Trial, enable_x64

FEW = 5  # rows, where they run one by one
KEYS = 400  # draws of an estimate
SURE = 5.0  # standard errors that its mean may be away from the exact value
EXACT = 1e-9  # relative error of algebra in float64
LOOSE = 1e-6  # relative error of a solver in float64
SINGLE = 1e-3  # relative error of a round trip in float32


class Property(NamedTuple):
    """One line of a report: a property, whether it holds, and the figure or the error that shows it."""

    name: str
    passed: bool
    detail: str


class VerifyReport(NamedTuple):
    """The findings of `verify`; prints as a table.

    Attributes:
        name: the name of the bijection.
        properties: the properties, each with its name, whether it passed, and the figures.
        likelihood: the kind of its log-det with `rng`: 'exact', 'unbiased' or 'lower bound'.
        kind: "bijection" or "surjection".
    """

    name: str
    properties: tuple[Property, ...]
    likelihood: str = "exact"
    kind: str = "bijection"

    @property
    def passed(self) -> bool:
        """Return whether every property holds."""
        return all(line.passed for line in self.properties)

    def __str__(self) -> str:
        width = max(len(line.name) for line in self.properties)
        lines = [f"{'pass' if line.passed else 'FAIL'}  {line.name:{width}}  {line.detail}" for line in self.properties]
        only_log_det = all("log_det" in line.name for line in self.properties if not line.passed)
        verdict = f"a {self.kind}, but its log_det is WRONG" if only_log_det else f"NOT a {self.kind}"
        verdict = f"a {self.kind}, log_det: {self.likelihood}" if self.passed else verdict
        return "\n".join([f"{self.name}: {verdict}", *lines])


def verify(
    init_fun: BijectionLike,
    input_dim: Any,
    rng: Any = 0,
    *,
    context_dim: Any = 0,
    inputs: Any = None,
    rows: int = 64,
    raise_on_failure: bool = False,
) -> VerifyReport:
    """Check that a layer keeps the contract, at random params and some points, in float64.

    Round trips both ways; both log-dets against the Jacobian by automatic differentiation; jit and row-by-row agreement;
    functions free of rng (made again with another key, caches bypassed); finite gradients; no gradient through fixed
    leaves; a round trip in float32. The functions are called without `rng`, which makes an 'unbiased' log-det exact; where they
    take `rng`, outputs must be the same with it, and the mean of log-dets over 400 keys must be the exact value.

    Of a layer that draws (`flows.surjection`) the round trips that hold are checked, the weight of a pair, and whether weights
    fit samples: three means over 20,000 draws, and the same over rows of a proposal, by the weights of both.

    Args:
        init_fun: a bijection: a constructor's value or a plain function.
        input_dim: its event, an int or a tuple.
        rng: key or seed, for init, points, the noise of 0.1 added to trained params and estimates.
        context_dim: the shape of the context, where the layer takes one.
        inputs: points to test at, (batch, *event); by default standard normal, or in the support that the layer declares.
            Needed where the domain is different.
        rows: number of points without `inputs`; a layer that cannot be compiled is tested at the first 5 alone.
        raise_on_failure: raise `FlowsError` with the report unless all hold.

    Returns:
        A `VerifyReport`: print it, or read `.passed` and `.properties`.

    Errors:
        TypeError: `init_fun` is not a bijection.
        FlowsError: inputs that are not rows of its event; a property that fails, with `raise_on_failure`.

    Example:
        >>> import flows
        >>> report = flows.verify(flows.AffineCoupling(), 3)
        >>> report.passed
        True
        >>> print(report)                                                             # doctest: +ELLIPSIS
        AffineCoupling(): a bijection, log_det: exact
        pass  inverse(direct(x)) = x              largest difference ...
        ...
    """
    if isinstance(init_fun, DistributionInit):
        raise TypeError(f"verify: {init_fun!r:.80} is a distribution; expected a bijection")
    layer = init_fun if isinstance(init_fun, BijectionInit) else Serial(init_fun)
    closure, name = None, repr(init_fun)
    if layer is not init_fun:
        closure, name = init_fun, getattr(init_fun, "__name__", name)
    if inputs is not None:
        inputs = as_array(inputs, "inputs")
        check_rows(inputs, as_event(input_dim), "verify")
        if not len(inputs):
            raise FlowsError("verify: inputs have no rows; expected a few points to test at")
    rows = positive_int(rows, "verify: rows", most=100_000)
    with enable_x64():
        properties = tuple(_properties(layer, closure, input_dim, as_key(rng), context_dim, inputs, rows))
    report = VerifyReport(name[:200], properties, layer.likelihood, "bijection" if layer.bijective else "surjection")
    if raise_on_failure and not report.passed:
        raise FlowsError(str(report))
    return report


def _properties(
    layer: BijectionInit, closure: Callable | None, input_dim: Any, key: Array, context_dim: Any, inputs: Any, rows: int
) -> Iterator[Property]:
    keys = jax.random.split(key, 6)
    event, context_shape = as_event(input_dim), as_context(context_dim)
    try:
        params, direct_fun, inverse_fun = layer(keys[0], input_dim, context_dim=context_dim)
        params = _stir(keys[1], cast(params, jnp.float64))
    except Exception as error:
        yield Property("init", False, _say(error))
        return

    regions = regions_of(layer, event)
    x = jax.random.normal(keys[2], (rows, *event)) if inputs is None else on_device(np.asarray(inputs), float)
    if inputs is None and regions[0] is not None:
        x = inside(regions[0], x)
    keywords: dict[str, Any] = {} if context_shape is None else {"context": jax.random.normal(keys[4], context_shape)}
    bound: tuple[Callable, Callable] = partial(direct_fun, **keywords), partial(inverse_fun, **keywords)
    direct, inverse = (partial(function, params) for function in bound)

    def check(name: str, tolerance: float, measure: Callable[[], Any]) -> Property:
        try:
            pairs = measure()
        except Exception as error:
            return Property(name, False, _say(error))
        worst = max(_difference(a, b) for a, b in pairs)
        return Property(name, bool(worst <= tolerance), f"largest difference {worst:.1e}")

    if not layer.bijective:
        yield from _drawn(check, layer, params, (direct_fun, inverse_fun), x, keys[3], keywords.get("context"))
        return

    try:
        measured = jax.jit(partial(_measured, *bound, regions))(params, x)
    except Exception:  # one by one, so that the property that fails has the error
        measured, x = None, x[:FEW]
    trial = RowByRow(*bound, params, x, regions=regions)
    for trip, (tolerance, pairs) in ROUND_TRIPS.items():
        yield check(trip, tolerance, partial(pairs, trial) if measured is None else partial(measured.get, trip))
    if closure is not None:  # a combinator derives the log-det of the inverse, so the closure itself has to be called
        inverse_fun = closure(keys[0], as_dim(event), **select(named_by(closure, INIT), context_dim=context_dim))[2]
        invert = partial(inverse_fun, params[0], **select(named_by(inverse_fun, CALL), **keywords))
        yield check("its own log_det of inverse", LOOSE, lambda: [(invert(y)[1], inverse(y)[1]) for y in [direct(x)[0]]])
    try:
        jax.eval_shape(direct, x)
    except TRACING_ERRORS:
        yield Property("jit agrees", True, "runs as plain Python, row by row; jit cannot be used")
    except Exception as error:
        yield Property("jit agrees", False, _say(error))
    else:
        compiled = jax.jit(direct) if measured is None else lambda _: measured["y"]
        yield check("jit agrees", EXACT, lambda: zip(compiled(x), direct(x), strict=True))
    few = x[:FEW]
    yield check(
        "row by row agrees",
        EXACT,
        lambda: zip(map(jnp.concatenate, zip(*map(direct, few[:, None]), strict=True)), direct(few), strict=True),
    )

    def other_functions() -> list[tuple[Any, Any]]:
        with fresh_caches():
            _, other_direct, other_inverse = layer(keys[5], input_dim, context_dim=context_dim)
        y = direct(x)[0]
        pairs = zip(other_direct(params, x, **keywords), direct(x), strict=True)
        return [*pairs, *zip(other_inverse(params, y, **keywords), inverse(y), strict=True)]

    yield check("functions free of rng", EXACT, other_functions)

    try:
        gradients = trial.gradients if measured is None else measured["gradients"]
    except Exception as error:
        yield Property("finite gradients", False, _say(error))
        return
    finite = all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
    yield Property("finite gradients", finite, "of params and inputs")
    masks = jax.tree.leaves(trainable(params))
    fixed = [leaf for leaf, train in zip(jax.tree.leaves(gradients[0]), masks, strict=True) if not train]
    still = all(bool((leaf == 0).all()) for leaf in fixed)
    yield Property("fixed leaves untouched", still, f"{len(fixed)} fixed of {len(masks)} leaves")

    def single() -> list[tuple[Any, Any]]:
        low, low_params = x.astype(jnp.float32), cast(params, jnp.float32)
        y, log_det = bound[0](low_params, low)
        if (y.dtype, log_det.dtype) != (jnp.float32, jnp.float32):
            raise FlowsError(f"float32 inputs gave {y.dtype} outputs and a {log_det.dtype} log_det")
        return [(bound[1](low_params, y)[0], low)]

    yield check("round trip in float32", SINGLE, single)
    if "rng" in layer.part(event, context_shape).keywords and layer.likelihood != "lower bound":
        yield _mean_over_keys(partial(direct, few), jax.random.split(keys[3], KEYS))


def _drawn(check: Callable, layer: BijectionInit, params: Any, functions: tuple, *data: Any) -> Iterator[Property]:
    """Properties of a layer that draws."""
    try:
        for name, tolerance, measure in pairs_of(LOOSE, layer, params, functions, *data):
            if tolerance is not None:
                yield check(name, tolerance, measure)
                continue
            means = np.array(measure())  # (means, 2, a mean and its error)
            far = float((np.abs(means[:, 0, 0] - means[:, 1, 0]) / np.hypot(means[:, 0, 1], means[:, 1, 1])).max())
            yield Property(name, far <= SURE, f"{far:.1f} standard errors apart")
    except Exception as error:
        yield Property("functions", False, _say(error))


def _mean_over_keys(direct: Callable, keys: Array) -> Property:
    """Check that rng changes neither outputs, nor the mean of log-dets."""
    name = "mean over rng"
    try:
        y, log_det = direct()
        draws, estimates = jax.jit(jax.vmap(lambda key: direct(rng=key)))(keys)
    except TRACING_ERRORS:
        return Property(name, True, "runs as plain Python; not looked at")
    except Exception as error:
        return Property(name, False, _say(error))
    moved, away = _difference(draws, jnp.broadcast_to(y, draws.shape)), estimates.mean(0) - log_det
    spread = estimates.std(0) / len(keys) ** 0.5
    if not moved <= EXACT:
        return Property(name, False, f"outputs change with rng by {moved:.1e}")
    far = float((jnp.abs(away) / (spread + EXACT * (1 + jnp.abs(log_det)))).max())
    return Property(name, far <= SURE, f"{far:.1f} standard errors of {len(keys)} draws from the exact log_det")


def _stir(key: Array, params: Any) -> Any:
    """Add noise of 0.1 to trained params, so that a layer that starts as the identity is tested away from it."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))
    noisy = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=False)]
    chosen = [b if train else a for a, b, train in zip(leaves, noisy, jax.tree.leaves(trainable(params)), strict=True)]
    return jax.tree.unflatten(treedef, chosen)


ROUND_TRIPS: dict[str, tuple[float, Callable[[Any], list]]] = {
    "inverse(direct(x)) = x": (LOOSE, lambda trial: [(trial.back, trial.x)]),
    "direct(inverse(y)) = y": (LOOSE, lambda trial: [(trial.again[0], trial.y)]),
    "log_det of direct = Jacobian": (LOOSE, lambda trial: [(trial.log_det, trial.log_volume)]),
    "log_det of inverse = Jacobian": (LOOSE, lambda trial: [(trial.back_log_det, trial.back_log_volume)]),
    "log_det of inverse = -direct's": (EXACT, lambda trial: [(trial.back_log_det, -trial.again[1])]),
}


def _measured(direct: Callable, inverse: Callable, regions: tuple, params: Any, x: Array) -> dict[str, Any]:
    """Return all facts that one compiled program can give."""
    trial = Trial(direct, inverse, params, x, regions=regions)
    pairs = {name: pairs(trial) for name, (_, pairs) in ROUND_TRIPS.items()}
    return {**pairs, "y": (trial.y, trial.log_det), "gradients": trial.gradients}


def _difference(a: Any, b: Any) -> float:
    """Return the largest |a - b| / (1 + |b|); inf where either side has NaN."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):  # of infinite log-dets
        relative = np.abs(a - b) / (1 + np.abs(b))
    return float(np.where(np.isnan(relative), np.inf, relative).max(initial=0.0))


def _say(error: Exception) -> str:
    notes = [note for note in getattr(error, "__notes__", ()) if "JAX_TRACEBACK_FILTERING" not in note]
    return "; ".join([f"{type(error).__name__}: {error}"[:400], *notes])
