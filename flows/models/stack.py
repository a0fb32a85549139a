"""Parts that models have in common: how their steps are stacked, and which arguments they share."""

from collections.abc import Callable, Sequence

from flows.compose import Repeat, Reversible, Serial
from flows.core import BijectionInit, check_widths, positive_int, spend

# Deeper stacks are loops, as benchmarks/speed.md has it: affine layers gain from one soon, as most of what they take beyond
# their matrix products is for each array of weights; the others compile sooner for about the same step. What integrates in each
# layer compiles little, and a loop would integrate again for the gradient. Part of what a model is, as params are stacked then.
UNROLLED = 3
UNROLLED_AFFINE = 4
UNROLLED_INTEGRAL = 10

# The largest |log-scale| of one affine layer, in nats. At 10 a few test rows far out can cost more than all the others, as each
# layer multiplies what it has not seen: with ten RealNVP layers on POWER the mean was -4.3 nats, of which 3.9 came from 4 rows
# of 204,928; at 2 it is -0.39, and the median the same.
LOG_SCALE = 2.0

# How far out networks see their inputs as they are, in standard deviations of the data. Without it 20 layers lose the inverses
# of rows ten times farther out than the data, by `benchmarks/stability.py`.
SQUASH = 3.0

Activation = str | Callable


def stack(
    name: str,
    step: list[BijectionInit],
    num_layers: int,
    scan: bool | None,
    last: Sequence[BijectionInit] = (),
    flipped: Sequence[BijectionInit] = (),
    unrolled: int = UNROLLED,
    reversible: bool = False,
) -> BijectionInit:
    """`num_layers` times `step`, then `last`: one after the other, or as a loop. Every second step is `flipped`, if given. With
    `reversible` the gradient keeps no inputs of the steps."""
    positive_int(num_layers, f"{name}: num_layers", most=10_000)
    spend(parts=num_layers)
    repeats, left = divmod(num_layers, 2) if flipped else (num_layers, 0)
    body, rest = [*step, *flipped], step * left
    if repeats and (num_layers > unrolled if scan is None else scan):
        return Serial(Repeat(Serial(*body), repeats, reversible), *rest, *last)
    if reversible and last:
        return Serial(Reversible(*(body * repeats), *rest), *last)
    return (Reversible if reversible else Serial)(*(body * repeats), *rest, *last)


def check_hidden(hidden: Sequence[int], name: str) -> tuple[int, ...]:
    return check_widths(hidden, f"{name}: hidden")
