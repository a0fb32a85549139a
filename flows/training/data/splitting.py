"""Numbers of rows divided at random: those to train on and those held out, where copies of a row stay together."""

import jax
import numpy as np

from flows.core import Array, FlowsError

LEAST_ROWS = 2  # of training rows; one row has no spread
SMALLER = 1, 2, 4  # times: parts that are held out, where copies leave too few rows for larger ones
ENOUGH = 0.5  # of the rows that are to be held out: with fewer, copies are so many that they are held out apart


def split_numbers(n: int, validation: float, key: Array, groups: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows to train on and of those held out, drawn at random; all of one of the `groups` to one side."""
    held_out = max(round(n * validation), 1)
    if n - held_out < LEAST_ROWS:
        raise FlowsError(
            f"fit: data has {counted(n)}, and validation={validation} leaves {max(n - held_out, 0)} to train on; "
            f"expected at least {LEAST_ROWS}. Give more rows, or a smaller validation"
        )
    order = shuffled(n, key)
    part = np.full(n, -1)
    part[order[:held_out]] = 0
    if groups is not None:
        smallest = int(np.unique(groups, return_counts=True)[1].min())
        together = _parts(groups, order, max(held_out, smallest), 1)
        part = together if ENOUGH * held_out <= (together == 0).sum() <= n - LEAST_ROWS else part
    return order[part[order] < 0], order[part[order] == 0]


def folds_of_rows(n: int, folds: int, key: Array, groups: np.ndarray | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same for each fold, which holds out another part: as many rows in each, so that folds share their programs."""
    order, size = shuffled(n, key), n // folds
    part = np.full(n, -1)
    part[order[: folds * size]] = np.repeat(np.arange(folds), size)
    for smaller in SMALLER:
        if groups is None:
            break
        together = _parts(groups, order, size // smaller, folds)
        if np.bincount(together[together >= 0], minlength=folds).min() >= max(ENOUGH * size / smaller, 1):
            part = together
            break
    sizes = np.bincount(part[part >= 0], minlength=folds)
    pairs = []
    for fold in range(folds):  # where copies do not fill one, what is over in others is neither trained on nor held out
        out = part[order] == fold
        pairs.append((np.sort(order[~out][: n - sizes.max()]), order[out][: sizes.min()]))
    return pairs


def _parts(groups: np.ndarray, order: np.ndarray, size: int, parts: int) -> np.ndarray:
    """The part of each row, -1 where it is in none: whole groups, in an order at random, as they fit into so many rows."""
    _, first, group_of_row, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    part_of_group, left = np.full(len(sizes), -1), np.argsort(place[first])
    for part in range(parts):
        total = np.cumsum(sizes[left])
        taken = int(np.searchsorted(total, size, side="right"))  # all that fit before one that does not
        chosen, room = left[:taken].tolist(), size - int(total[taken - 1] if taken else 0)
        rest = left[taken:].tolist()
        for i, group in enumerate(rest):
            if not room:
                break
            if sizes[group] <= room:
                chosen.append(group)
                room -= int(sizes[group])
                rest[i] = -1
        part_of_group[chosen] = part
        left = np.array([group for group in rest if group >= 0], int)
    return part_of_group[group_of_row.ravel()]


def shuffled(n: int, key: Array) -> np.ndarray:
    return np.random.default_rng(seed_of(key)).permutation(n)


def seed_of(key: Array) -> list[int]:
    return np.asarray(jax.random.key_data(key)).tolist()


def counted(n: int) -> str:
    return f"{n} row{'s' * (n != 1)}"
