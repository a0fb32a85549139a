"""Continuous flows: the solution of a differential equation whose velocity is a network.

Its solvers are Runge-Kutta methods of a fixed number of steps, and diffrax's adaptive ones. Family: Residual and continuous."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flows.bijections.engine import conditioned
from flows.conditioners import MLP
from flows.conditioners.base import check_conditioner
from flows.conditioners.network import running
from flows.core import (
    Array,
    ConditionerLike,
    FlowsError,
    Layer,
    bijection,
    lacking,
    not_negative,
    positive,
    positive_int,
    size,
    varying,
)

TRACES = ("exact", "hutchinson", "hutchinson-normal")
TOLERANCE, FINE = 1e-5, 1e-10  # in float32 and in float64
DATA, NOISE = 1.0, 0.0  # times
FEW = 8  # columns up to which the directions of the exact trace are unrolled
# Runge-Kutta methods: the weights of earlier slopes at each stage, and the weights of all slopes in the step.
TABLEAUX: dict[str, tuple[list[list[Any]], list[Any]]] = {
    "euler": ([[]], [1]),
    "midpoint": ([[], ["1/2"]], [0, 1]),
    "heun": ([[], [1]], ["1/2", "1/2"]),
    "bosh3": ([[], ["1/2"], [0, "3/4"]], ["2/9", "1/3", "4/9"]),
    "rk4": ([[], ["1/2"], [0, "1/2"], [0, 0, 1]], ["1/6", "1/3", "1/3", "1/6"]),
    "dopri5": (
        [
            [],
            ["1/5"],
            ["3/40", "9/40"],
            ["44/45", "-56/15", "32/9"],
            ["19372/6561", "-25360/2187", "64448/6561", "-212/729"],
            ["9017/3168", "-355/33", "46732/5247", "49/176", "-5103/18656"],
        ],
        ["35/384", 0, "500/1113", "125/192", "-2187/6784", "11/84"],
    ),
    "tsit5": (
        [
            [],
            [0.161],
            [-0.008480655492356989, 0.335480655492357],
            [2.8971530571054935, -6.359448489975075, 4.3622954328695815],
            [5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525],
            [5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383],
        ],
        [0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774],
    ),
}
ADAPTIVE = {"heun": "Heun", "bosh3": "Bosh3", "tsit5": "Tsit5", "dopri5": "Dopri5", "dopri8": "Dopri8"}  # names in diffrax
ADJOINTS = {"checkpoint": "RecursiveCheckpointAdjoint", "direct": "DirectAdjoint", "backsolve": "BacksolveAdjoint"}
MOST_STEPS = 4_096

Field = Callable[[Array, Any], Any]  # (t, state) -> d state / dt


def fixed(name: str, field: Field, state: Any, start: float, end: float, steps: int) -> Any:
    """State at `end` after `steps` equal steps, of whole batches; the gradient stores one state for each step."""
    stages, weights = TABLEAUX[name]
    stages, weights = [list(map(_number, row)) for row in stages], list(map(_number, weights))
    h = (end - start) / steps
    dtype = jax.tree.leaves(state)[0].dtype

    def moved(state: Any, slopes: list, by: list[float]) -> Any:
        used = [(slope, h * weight) for slope, weight in zip(slopes, by, strict=False) if weight]

        def moved_leaf(y: Array, *leaves: Array) -> Array:
            return y + sum(weight * slope for slope, (_, weight) in zip(leaves, used, strict=True))

        return jax.tree.map(moved_leaf, state, *[slope for slope, _ in used])

    @jax.checkpoint
    def step(state: Any, t: Array) -> tuple[Any, None]:
        slopes = list[Any]()
        for row in stages:
            slopes.append(field(t + h * sum(row), moved(state, slopes, row)))
        return moved(state, slopes, weights), None

    times = jnp.asarray(start + h * np.arange(steps), dtype)
    return lax.scan(step, varying(state, (state, field(times[0], state))), times)[0]


def _number(entry: Any) -> float:
    return float(Fraction(entry)) if isinstance(entry, str) else float(entry)


def adaptive(
    name: str, field: Callable, state: Any, start: float, end: float, tolerance: float, adjoint: str, args: Any
) -> tuple[Any, Array]:
    """State of one row at `end`, and True if it was reached, by steps that keep the error within the tolerance; the field is
    `field(t, state, args)`."""
    diffrax = required()
    dtype = jax.tree.leaves(state)[0].dtype
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            getattr(diffrax, ADAPTIVE[name])(),
            jnp.asarray(start, dtype),
            jnp.asarray(end, dtype),
            None,
            state,
            args,
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            adjoint=getattr(diffrax, ADJOINTS[adjoint])(),
            max_steps=MOST_STEPS,
            throw=False,
        )
    reached = solution.result == diffrax.RESULTS.successful
    return jax.tree.map(lambda leaf: leaf[0], solution.ys), reached


def required() -> Any:
    """The module diffrax, which comes with an extra."""
    try:
        import diffrax
    except ImportError as error:
        hint = lacking("Continuous without steps=", "diffrax", "continuous")
        raise ImportError(f"{hint}; or give steps=, such as steps=8") from error
    return diffrax


@bijection(batched=True, likelihood=lambda trace, **_: "exact" if trace == "exact" else "unbiased")
def Continuous(
    conditioner: ConditionerLike | None = None,
    trace: str = "exact",
    solver: str = "tsit5",
    steps: int | None = None,
    tolerance: float | None = None,
    adjoint: str = "checkpoint",
    kinetic: float = 0.0,
    jacobian: float = 0.0,
):
    """A continuous flow: dx/dt = v(x, t) from the data at t = 1 to the noise at t = 0, v a network of x and t.

    y = x(0), and log|det J| = -integral_0^1 tr(dv/dx) dt along the way, in nats. The inverse solves from 0 to 1.

    Without `steps` each row takes separate steps, of sizes that keep its error within the tolerance, so that no density
    depends on the batch; this needs diffrax (the extra `continuous`), and a row that takes more than 4,096 steps
    is NaN. With `steps` a batch takes that many equal steps: gradients cost a fraction, which suits training by likelihood, but
    the density integrates to 1 only as well as these steps solve the equation. Params are the same for both.
    `objectives.flow_matching` trains v without solving the equation.

    Args:
        conditioner: a network of the inputs (x, t), or of x with t as a last channel; by default a smooth
            `MLP(64, 64, 64, activation="gelu")`; `conditioners.ConcatSquash` is the network of FFJORD.
        trace: "exact", by d derivatives of the network; or, with `rng`, an estimate e'(dv/dx)e by one, where e are signs
            ("hutchinson") or normal ("hutchinson-normal"), the same along the way. Without `rng` it is exact.
        solver: "tsit5", "dopri5", "bosh3", "heun"; "dopri8" without steps; "rk4", "midpoint", "euler" with them.
        steps: the number of steps, or None for adaptive ones.
        tolerance: of adaptive steps, relative and absolute; by default 1e-5, in float64 1e-10.
        adjoint: how gradients go through adaptive steps: "checkpoint", in reverse mode alone; "direct", in both modes, takes
            more memory; "backsolve" solves back in time, and is inexact.
        kinetic, jacobian: factors of the integrals of |v|^2 and of the squared Frobenius norm of dv/dx, subtracted from log_det
            under `train=True` alone: paths become straight, and take fewer steps. Both are 0.01 in the paper.

    Params:
        The params of the network.

    Cost:
        Direct: an evaluation of the network and its trace at each stage of each step. Inverse: without the trace.

    Errors:
        FlowsError: an unknown name, numbers outside their range, a tolerance or an adjoint with steps; a network that names
            `rng` or `train`. ImportError: diffrax is not installed, and no steps were given.

    Source:
        Chen, Rubanova, Bettencourt and Duvenaud, "Neural Ordinary Differential Equations", 2018, arXiv:1806.07366; Grathwohl,
        Chen, Bettencourt, Sutskever and Duvenaud, "FFJORD", 2019, arXiv:1810.01367; kinetic and jacobian: Finlay, Jacobsen,
        Nurbekyan and Oberman, "How to Train Your Neural ODE", 2020, arXiv:2002.02798.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, direct_fun, inverse_fun = flows.Continuous(steps=4)(0, 2)
        >>> y, log_det = direct_fun(params, jnp.ones((3, 2)))
        >>> bool(abs(inverse_fun(params, y)[0] - 1).max() < 1e-4)
        True
    """
    net = MLP(64, 64, 64, activation="gelu") if conditioner is None else check_conditioner(conditioner, "Continuous")
    kinetic, jacobian = (
        not_negative(factor, f"Continuous: {name}") for factor, name in ((kinetic, "kinetic"), (jacobian, "jacobian"))
    )
    _check(trace, TRACES, "trace")
    _check(solver, TABLEAUX if steps is not None else ADAPTIVE, f"solver {'with' if steps is not None else 'without'} steps")
    _check(adjoint, ADJOINTS, "adjoint")
    if steps is not None:
        steps = positive_int(steps, "Continuous: steps", most=100_000)
        if tolerance is not None or adjoint != "checkpoint":
            raise FlowsError("Continuous: tolerance and adjoint belong to adaptive steps; leave them out, or give steps=None")
    elif tolerance is not None:
        tolerance = positive(tolerance, "Continuous: tolerance")

    def make(key, shape, context, args):
        if steps is None:
            required()
        data = args.init_inputs
        data = None if data is None else jnp.concatenate([data, jnp.ones_like(data[..., :1])], -1)  # the time as well
        inputs = (*shape[:-1], shape[-1] + 1)
        start, network = running(net, key, inputs, shape, context, args._replace(init_inputs=data))
        if network.keywords:
            raise FlowsError(
                f"Continuous: {net!r:.80} names {', '.join(sorted(network.keywords))}, and its velocity would change along the "
                "way; expected a network without dropout or batch statistics"
            )

        def velocity(params, t, x, context=None):
            """Velocity of rows x at times t, one for all rows or one for each."""
            channels = jnp.moveaxis(x, -1, 0)
            times = jnp.reshape(t, (1, -1, *(1,) * (x.ndim - 2))).astype(x.dtype)
            inputs = jnp.concatenate([channels, jnp.broadcast_to(times, (1, *channels.shape[1:]))])
            return jnp.moveaxis(network.run(params, inputs, context), 0, -1)

        def field(traced, train):
            """The time derivative of the state of rows: x alone, or with the log-det and the penalty."""

            def slopes(t, state, constants):
                params, context, noise = constants

                def v(x):
                    return velocity(params, t, x, context)

                if not traced:
                    return (v(state[0]),)
                if noise is None:
                    slope, trace, squares = _exact(v, state[0])
                else:
                    slope, change = jax.jvp(v, state[:1], (noise,))
                    trace, squares = _row_sums(noise * change), _row_sums(change * change)
                penalty = kinetic * _row_sums(slope * slope) + jacobian * squares if train else jnp.zeros_like(trace)
                return slope, trace, penalty

            return slopes

        def solve(params, x, context, noise, traced, train, start, end):
            """The state of all rows at the end."""

            def begin(x):
                zero = jnp.zeros(x.shape[0], x.dtype)
                return (x, zero, zero) if traced else (x,)

            if steps is not None:
                constants = params, context, noise
                return fixed(solver, lambda t, state: field(traced, train)(t, state, constants), begin(x), start, end, steps)
            finest = tolerance or (TOLERANCE if x.dtype == jnp.float32 else FINE)

            def one(*row):
                x, *rest = jax.tree.map(lambda leaf: leaf[None], row)  # a batch of one
                state, reached = adaptive(solver, field(traced, train), begin(x), start, end, finest, adjoint, (params, *rest))
                return jax.tree.map(lambda leaf: jnp.where(reached, leaf[0], jnp.nan), state)

            return jax.vmap(one)(x, context, noise)

        def direct(params, x, context=None, rng=None, train=False):
            noise = None
            if rng is not None and trace != "exact":
                draw = jax.random.rademacher if trace == "hutchinson" else jax.random.normal
                noise = draw(rng, x.shape, x.dtype)
            y, log_det, penalty = solve(params, x, context, noise, True, train, DATA, NOISE)
            return y, log_det + penalty  # both integrals run from 1 to 0

        def inverse(params, y, context=None):
            return solve(params, y, context, None, False, False, NOISE, DATA)[0]

        keywords = {"context"} | ({"rng"} if trace != "exact" else set()) | ({"train"} if kinetic or jacobian else set())
        return Layer(start, direct, inverse, velocity=velocity, keywords=keywords)

    return conditioned(net, make)


def _exact(v: Callable, x: Array) -> tuple[Array, Array, Array]:
    """v(x) of rows, and for each row the trace and the squared Frobenius norm of its derivative."""
    slope, push = jax.linearize(v, x)
    entries = size(x.shape[1:])
    unit = jnp.eye(entries, dtype=x.dtype).reshape(entries, 1, *x.shape[1:])

    def change(direction: Array) -> Array:
        return push(jnp.broadcast_to(direction, x.shape))

    # One direction after the other: the gradient of all at once takes three to seven times as long on a CPU.
    changes = jnp.stack([change(direction) for direction in unit]) if entries <= FEW else lax.map(change, unit)
    return slope, jax.vmap(_row_sums)(unit * changes).sum(0), jax.vmap(_row_sums)(changes * changes).sum(0)


def _row_sums(x: Array) -> Array:
    """The sum over everything but the rows."""
    return x.sum(tuple(range(1, x.ndim)))


def _check(x: Any, known: Any, name: str) -> None:
    if not isinstance(x, str) or x not in known:
        raise FlowsError(f"Continuous: {name} is {x!r:.60}; expected one of {', '.join(map(repr, known))}")
