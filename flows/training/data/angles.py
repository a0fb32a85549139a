"""Columns that are not numbers of the line: degrees for unit vectors, points off the sphere, false codes, turns of angles."""

import numpy as np

from flows.bijections.degrees import told_of_degrees
from flows.core import MOST_TURNS, NEAR_END, OFF_SPHERE, FlowsError, Region, blocks_of, warn_user
from flows.training.data.table import Split, Table
from flows.training.model_view import ModelView

TURNS = 3  # that an angle may span before it is taken for another unit


def check_points(view: ModelView, split: Split, caller: str) -> None:
    """Refuse rows that are no points of a model: degrees, no unit vectors, no codes; and a model that fits no such rows."""
    table, labels = split.train, split.train.labels
    # One of the sphere may have no part at an event of two columns.
    if view.event == (2,) and view.of_sphere and (degrees := told_of_degrees(np.asarray(table.x), labels)):
        raise FlowsError(f"{caller}: data has 2 columns, and {view.init_fun!r:.80} takes unit vectors: {degrees}")
    region = view.region
    if region is None or region.flat:
        return
    _check_codes(region, split, caller)
    for block in blocks_of(region.sphere):
        which = ", ".join(labels[i].removeprefix("column ") for i in block)
        for table in split.tables:
            squared = np.square(np.asarray(table.x, float)[:, block]).sum(1)
            off = np.abs(squared - 1) > OFF_SPHERE
            if off.any():
                row = int(np.argmax(off))
                degrees = told_of_degrees(np.asarray(table.x)[:, block], [labels[i] for i in block])
                raise FlowsError(
                    f"{caller}: row {table.numbers[row]} of {table.source} is no point of the sphere: the squares of its "
                    f"columns {which} add up to {squared[row]:.6g}; of {len(off)} rows {int(off.sum())} are off it. Expected "
                    "unit vectors: " + (degrees or "divide each row by its norm, or give a model of the line")
                )
        vectors = np.asarray(split.train.x)[:, block]
        if (vectors == vectors[:1]).all():
            one = ", ".join(f"{coordinate:.6g}" for coordinate in vectors[0])
            raise FlowsError(
                f"{caller}: columns {which} of data are constant, the unit vector ({one}) in all {len(vectors)} training rows, "
                "so they have no density. Leave them out, or add noise the size of their recorded step"
            )


def _check_codes(region: Region, split: Split, caller: str) -> None:
    """Refuse what is no code where the model has one."""
    for entry in map(tuple, np.argwhere(region.classes)):
        classes = int(region.classes[entry])
        for table in split.tables:
            column = np.asarray(table.x[(slice(None), *entry)])
            wrong = (column < 0) | (column >= classes) | (column != np.floor(column))
            if wrong.any():
                row = int(np.argmax(wrong))
                raise FlowsError(
                    f"{caller}: {table.labels[entry[-1]]} of {table.source} is {column[row]:.6g} in row {table.numbers[row]}, "
                    f"which is no code; expected whole numbers 0 to {classes - 1}, one for each category. Of {len(wrong)} rows "
                    f"{int(wrong.sum())} are so: give them a code, or drop them"
                )


def turn_of(region: Region | None, split: Split) -> np.ndarray | None:
    """Where the turn begins on which the data give each angle, of the shape of the event, 0 for what is none; None without any.

    It is [0, period) where that holds all rows, then [-period / 2, period / 2), then another that begins at a multiple of half
    a period; else it begins at the least of them. Around 0 it is where they span more than a turn, which tells nothing.
    """
    if region is None or not np.any(region.period):
        return None
    rows = [np.asarray(table.x) for table in split.tables]
    least = np.min([x.min(0) for x in rows], 0).astype(float)
    most = np.max([x.max(0) for x in rows], 0).astype(float)
    period = np.where(region.period > 0, region.period, 1.0)
    slack, half = NEAR_END * period, period / 2
    turn = -half
    for low in (least, np.floor((least + slack) / half) * half, -half, np.zeros_like(half)):  # the last that holds all is taken
        turn = np.where((least >= low - slack) & (most <= low + period + slack), low, turn)
    known = (region.period > 0) & (np.abs(turn) <= MOST_TURNS * period)
    return np.where(region.period > 0, np.where(known, turn, -half), 0.0)


def check_turns(region: Region | None, table: Table, caller: str) -> None:
    """Warn of angles that look like degrees."""
    for i, period in enumerate([] if region is None else region.period.reshape(-1, len(table.labels)).max(0).tolist()):
        if period and (spread := float(np.ptp(table.x[..., i]))) > TURNS * period:
            warn_user(
                f"{caller}: {table.labels[i]} spans {spread:.4g}, {spread / period:.0f} turns of "
                f"{period:.4g}: are these degrees? Give radians, or transformers and a base of their period"
            )
