"""Solvers of ordinary differential equations: Runge-Kutta methods of a fixed number of steps, and diffrax's adaptive ones."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flows.core import Array, varying

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
        raise ImportError(
            "Continuous without steps= needs the package diffrax: pip install 'jax-flows[continuous]', or pip install "
            "-e .[continuous] in a clone; or give steps=, such as steps=8"
        ) from error
    return diffrax
