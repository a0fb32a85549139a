"""Ends of numbers and of dates that show, because rows do not become rare towards them."""

import math

import numpy as np

FEWEST = {"numbers": 500, "times": 1000}  # rows, below which no end shows: of 300 dates, a tail of one in three has one
PART = {"numbers": 0.02, "times": 0.1}  # of the rows, next to an end and again behind; of dates enough for whole weeks
LEAST_OF_PART = 20
TIMES = 1.7  # the room of the first part, in rooms of the second: 4 to 7 in a tail, 2.4 if rows decrease linearly
THIN = 4  # times less dense than the mean: the end of a tail, which is worth little
PILED = 5  # rows of a value that is an end wherever it lies, if the next ones, as many, are close, or have fewer rows in all
NEAR = 5.0  # mean distances of neighbours, by which a round number may lie beyond a continuous value
ON_GRID = 1e-6  # of a step
TURNS = 7, 12, 24, 60, 90, 180, 360, 365, 1440, 3600, 86_400  # round numbers, next to 1, 2 and 5 times a power of 10


def ends_that_show(levels: np.ndarray, counts: np.ndarray, step: float | None) -> tuple[float | None, float | None]:
    """Return the low and the high end of numbers, None where none shows. An end is the outermost value, if it is a round number
    or one step inside of one, or if 5 rows have it and the steps next to it are not empty; without a step it is a round number
    close beyond.

    Args:
        levels, counts: the values that occur, in order, and in how many rows.
        step: of the values; None where they are continuous.
    """
    low, high = abrupt(levels, counts, step or 0.0, "numbers")
    if max(-float(levels[0]), float(levels[-1])) >= 2.0**53:
        return None, None
    end = _low(-levels[::-1], counts[::-1], step) if high else None
    return _low(levels, counts, step) if low else None, None if end is None else -end


def abrupt(levels: np.ndarray, counts: np.ndarray, step: float, sort: str) -> tuple[bool, bool]:
    """Tell whether values begin, and whether they end, abruptly: whether the outermost part of the rows takes no more room
    than the next part, but for chance, and not many times its share."""
    if (rows := counts.sum()) < FEWEST[sort] or len(levels) < 2:
        return False, False
    part, shown = max(int(PART[sort] * rows), LEAST_OF_PART), list[bool]()
    for values, times in ((levels, counts), (-levels[::-1], counts[::-1])):
        first, second = (_room(values, times, several * max(part, int(times[0])), step) for several in (1, 2))
        thin = first * rows > THIN * max(part, int(times[0])) * float(levels[-1] - levels[0])
        shown.append(first <= TIMES * (second - first) and not thin)
    return shown[0], shown[1]


def _room(levels: np.ndarray, counts: np.ndarray, rows: int, step: float) -> float:
    """Return how far the first rows reach, where rows of one value lie evenly in its cell."""
    so_far, edges = np.cumsum(counts), np.stack([levels - step / 2, levels + step / 2], 1).ravel()
    return float(np.interp(rows - ON_GRID, np.stack([so_far - counts, so_far], 1).ravel(), edges) - edges[0])


def _low(levels: np.ndarray, counts: np.ndarray, step: float | None) -> float | None:
    """Return the low end of values that begin abruptly, if it can be told where."""
    least, first = levels[0].item(), math.floor(math.log10(levels[-1] - levels[0])) - 1
    sizes = [*TURNS, *(times * 10.0**power for power in range(first, first + 9) for times in (1, 2, 5))]
    rounds = np.array([0.0, *sizes, *(-size for size in sizes)])
    if step is None:
        near = NEAR * _room(levels, counts, LEAST_OF_PART, 0.0) / LEAST_OF_PART
        return min((float(end) for end in rounds if 0 < least - end <= near), key=abs, default=None)
    places, inside = (levels - least) / step, np.add.outer((0.0, step), rounds)
    if np.abs(places - np.rint(places)).max() > ON_GRID:
        return None
    close = places[:PILED][-1] < 2 * PILED or counts[0] > counts[1 : PILED + 1].sum()
    return least if (counts[0] >= PILED and close) or np.abs(least - inside).min() <= ON_GRID * step else None
