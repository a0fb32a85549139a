"""Rows on which a fitted model cannot be trusted."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.bijections.composition import unit_of
from flows.compose import Serial
from flows.core import (
    Array,
    Block,
    Memo,
    ModelValue,
    Piece,
    Stage,
    as_context,
    as_event,
    bijection_part,
    params_in,
    pieces_of,
    stages,
    structure_of,
)
from flows.core import chain as layers_in
from flows.transformers.base import Transformer

TOLERANCE = 1e-3  # of a round trip, in standard deviations of a column, and of log-dets, in nats
ROUNDINGS = 8  # of the value itself, which any round trip in its dtype may lose
SHOWN = 20  # rows that a report prints
_programs = Memo(size=64)


class Untrusted(NamedTuple):
    """One row of a report: its number, the reason, and whether the only reason is that it lies beyond the range of the
    splines."""

    row: int
    reason: str
    beyond: bool = False


class RowReport(NamedTuple):
    """The findings of `result.verify`; prints as a list.

    Attributes:
        rows: the rows that are not to be trusted, each with its number and the reason.
        looked_at: the number of rows in all.
        round_trip, log_det: the largest finite errors, in standard deviations and in nats.
    """

    rows: tuple[Untrusted, ...]
    looked_at: int
    round_trip: float
    log_det: float

    @property
    def passed(self) -> bool:
        """Return whether all rows are to be trusted."""
        return not self.rows

    def __str__(self) -> str:
        worst = f"largest round-trip error {self.round_trip:.1e} standard deviations, of log-dets {self.log_det:.1e} nats"
        lines = [f"{len(self.rows):,} of {self.looked_at:,} rows are not to be trusted; {worst}"]
        lines += [f"row {untrusted.row}: {untrusted.reason}" for untrusted in self.rows[:SHOWN]]
        return "\n".join([*lines, f"and {len(self.rows) - SHOWN:,} more"] if len(self.rows) > SHOWN else lines)


def spline_bound(init_fun: Any) -> float:
    """Return the least half-width of the splines of a model, or of a layer; inf without splines."""
    values = init_fun.values_within() if isinstance(init_fun, ModelValue) else ()
    bounds = [value.bound for value in values if isinstance(value, Transformer)]
    return min((bound for bound in bounds if bound is not None), default=float("inf"))


def verify_rows(
    init_fun: Any, params: Any, input_dim: Any, context_dim: Any, rows: Array, context: Any, log_p: np.ndarray
) -> RowReport:
    """Check the round trip, the log-det, the log-density and the place of each row, in every component of a mixture and every
    block of features."""
    event, shape = as_event(input_dim), as_context(context_dim)
    untrusted = dict[int, Untrusted]()
    if not len(rows):
        return RowReport((), 0, 0.0, 0.0)

    def note(bad: np.ndarray, values: np.ndarray, reason: str, beyond: bool = False) -> None:
        for i in map(int, np.flatnonzero(bad)):
            if i not in untrusted or (untrusted[i].beyond and not beyond):
                untrusted[i] = Untrusted(i, reason.format(values[i]), beyond)

    note(~np.isfinite(log_p), log_p, "its log-density is {}")
    worst = [0.0, 0.0]
    for *way, _ in stages(init_fun, params, event, shape):
        chain = [stage for stage in way if stage.kind != "component"]
        bound = min(map(_bound_of, chain), default=float("inf"))  # of this component alone
        trips, log_dets, places = _errors(chain, rows, context)
        bad = ~(np.isfinite(trips) & np.isfinite(log_dets))
        note(bad, trips, "the model, or its inverse, is not finite there")
        note(~bad & (trips > TOLERANCE), trips, "its round trip is off by {:.1e} standard deviations")
        note(~bad & (log_dets > TOLERANCE), log_dets, "its log-det is off by {:.1e} nats at the point that comes back")
        note(places > bound, places, f"it lies at {{:.3g}}, outside the range of the splines, +-{bound:g}, standardised", True)
        worst = [max(a, float(np.where(bad, 0.0, b).max(initial=0.0))) for a, b in zip(worst, (trips, log_dets), strict=True)]
    return RowReport(tuple(untrusted[i] for i in sorted(untrusted)), len(rows), *worst)


def _errors(chain: list[Stage], rows: Array, context: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the error of the round trip of each row, the error of its log-det, and how far out the first splines see it."""
    without_params = tuple(stage._replace(params=None) for stage in chain)
    there_and_back = _programs(without_params, lambda: _program(without_params))
    params = [stage.params for stage in chain]
    outputs = [
        there_and_back(params, rows[piece], None if context is None else context[piece])
        for piece in pieces_of(len(rows), rows.shape[1:])
    ]
    back, log_det, back_log_det, places = (np.concatenate(parts).astype(float) for parts in zip(*outputs, strict=True))
    x = np.asarray(rows, float)
    off = np.abs(back - x) - ROUNDINGS * float(jnp.finfo(rows.dtype).eps) * np.abs(x)
    trips = (np.maximum(off, 0.0) / _spread(chain, x)[None]).reshape(len(x), -1).max(1)
    return trips, np.abs(log_det + back_log_det), np.abs(places).reshape(len(x), -1).max(1)


def _program(chain: Sequence[Stage]) -> Callable:
    parts = [stage.value if stage.kind == "block" else stage.part for stage in chain]  # a block is a part already
    with_splines = next((i for i, stage in enumerate(chain) if _bound_of(stage) < float("inf")), None)
    before, ahead = None, tuple[Piece, ...]()  # the layers before the splines in the same stage, as one part
    if with_splines is not None:
        stage = chain[with_splines]
        structure = structure_of(stage.value)
        if structure.forwards:
            ahead = tuple(itertools.takewhile(lambda piece: spline_bound(piece.value) == float("inf"), structure.pieces))
        if ahead:
            before = bijection_part(Serial(*(piece.value for piece in ahead)), stage.event, stage.context)

    def run(params: Any, x: Array, context: Any) -> tuple[Array, ...]:
        # Random layers add no noise, as in log_pdf without rng.
        y, places, steps = x, jnp.zeros_like(x), list[tuple]()
        log_det = back_log_det = jnp.zeros(x.shape[0], x.dtype)
        for i, (part, stage_params) in enumerate(zip(parts, params, strict=True)):
            if chain[i].kind == "context":
                context = part.embed(stage_params, context)
                continue
            if isinstance(part, Block):
                steps.append((part, y, None))
                y, context = part.of(y), part.context(y, context)
                continue
            condition = context if "context" in part.keywords else None
            if i == with_splines:
                params_ahead = tuple(params_in(stage_params, piece.params_at) for piece in ahead)
                places = y if before is None else before.direct(params_ahead, y, condition, None, False)[0]
            steps.append((part, stage_params, condition))
            y, slope = part.direct(stage_params, y, condition, None, False)
            log_det = log_det + slope
        for part, stage_params, condition in steps[::-1]:
            if isinstance(part, Block):  # other features stay as they were
                y = stage_params.at[:, slice(*part.features)].set(y)
                continue
            y, slope = part.invert(stage_params, y, condition, None, False)
            back_log_det = back_log_det + slope
        return y, log_det, back_log_det, places

    return jax.jit(run) if all(part.compiled for part in parts if not isinstance(part, Block)) else run


def _bound_of(stage: Stage) -> float:
    return float("inf") if stage.kind == "context" else spline_bound(stage.value)


def _spread(chain: list[Stage], x: np.ndarray) -> Any:
    """Return the standard deviation of each column: from the params of the first layers, or else of these rows."""
    first = next((stage for stage in chain if stage.kind != "context"), None)
    layers = [] if first is None or first.kind == "block" else layers_in(first.value)
    forwards = itertools.takewhile(lambda step: not step.inverted, layers)
    pairs = [(step.value, params_in(first and first.params, step.params_at)) for step in forwards]
    _, deviation, known = unit_of(pairs, x.shape[-1])
    std = np.std(x, 0) if len(x) > 1 else np.ones(x.shape[1:])
    return np.where(known, deviation, np.where(std > 0, std, 1.0))
