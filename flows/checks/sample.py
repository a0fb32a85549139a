"""Rows next to draws of a model, which all checks of a call share, with their columns as numbers that statistics compare."""

from functools import cached_property
from typing import Any

import jax
import numpy as np

from flows.checks.model import Model, flat
from flows.checks.verdicts import OneTest
from flows.core import Region, pieces_of, seen
from flows.diagnostics.arrays import chosen, generator
from flows.results.columns import Column

PER_ROW = 99  # draws for each row of a conditional model
CONDITIONAL = 2_000  # rows with such draws, at most
NUMBERS = 2**25  # in all of these draws
MOST_ENTRIES = 32  # of a context, next to features that a network makes of it
LEAST = 100  # rows, below which no p-value can be believed
COMMON = 20  # rows and draws that have a code, below which it is too rare to be correlated with anything


class Sample:
    """Rows and draws of a model, flat, in the dtype of the draws.

    Attributes:
        model: the model that is checked.
        all_rows, all_contexts: all rows of the call, (rows, *event), and None, (*context,) or (rows, *context).
        train: rows that the model was fitted to, with their contexts, flat; or None.
        conditional: whether rows have different contexts.
        classifier: the classifier that separates rows from draws; None for the default.
        columns: the columns of flat rows.
    """

    def __init__(self, model: Model, rows: np.ndarray, contexts: Any, train: Any, classifier: Any, key: Any, samples: int):
        self.conditional = model.batched(contexts)
        if self.conditional and (contexts == contexts[:1]).all():
            contexts, self.conditional = contexts[0], False  # one for all
        self.model, self.all_rows, self.all_contexts, self.train = model, rows, contexts, train
        self.classifier, self.columns = classifier, model.columns
        self.arrays, self.tests = dict[str, np.ndarray](), dict[str, list[OneTest]]()  # for pictures
        self.pairs = list[tuple[str, str, float, float]]()  # names and correlations, of rows and draws, that differ most
        self._key, self._samples = key, samples

    def key(self, purpose: int) -> Any:
        """Return a key that depends on the purpose alone, so that no check depends on which others run."""
        return jax.random.fold_in(self._key, purpose)

    def random(self, purpose: int) -> np.random.Generator:
        return generator(self.key(purpose))

    @cached_property
    def log_p(self) -> np.ndarray:
        """Log-densities of all rows, (rows,), in nats. A triple draws first: its draws show whether rows have its event."""
        if self.model.result is None:
            _ = self._drawn
        return self.model.log_p(self.all_rows, self.all_contexts)

    @cached_property
    def report(self) -> Any:
        """The `RowReport` of all rows; None without a result."""
        return None if self.model.result is None else self.model.result.verify(self.all_rows, context=self.all_contexts)

    @cached_property
    def places(self) -> np.ndarray:
        """Places of the rows that are compared with draws, in order: at most as many as draws; with a context at most 2,000."""
        return self._chosen[self._finite] if self.conditional else self._chosen

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows at `places`, (rows, columns)."""
        return flat(self.all_rows[self.places]).astype(self._drawn.dtype)

    @cached_property
    def contexts(self) -> Any:
        """Contexts of `rows`, (rows, *context), of a conditional model; otherwise the one for all, or None."""
        return self.contexts_at(self.places)

    def contexts_at(self, places: np.ndarray) -> Any:
        """Return the contexts of rows at these places, or the one for all, or None."""
        return self.all_contexts[places] if self.conditional else self.all_contexts

    @cached_property
    def conditions(self) -> tuple[list[str], np.ndarray]:
        """Names and numbers of the contexts of `rows`, (rows, numbers). Where a network makes features of them, these and
        at most 32 entries at random; else all entries."""
        numbers = flat(self.contexts)
        names = [f"context column {j}" for j in range(numbers.shape[1])]
        if (made := self.model.features(self.contexts)) is None:
            return names, numbers
        varying = np.flatnonzero((numbers != numbers[:1]).any(0))
        some = np.sort(chosen(varying, MOST_ENTRIES, self.random(22)))
        names = [*(f"feature {j} of the context" for j in range(made.shape[1])), *(names[j] for j in some)]
        return names, np.concatenate([made, numbers[:, some]], 1)

    @cached_property
    def draws(self) -> np.ndarray:
        """Finite draws, (draws, columns), or of a conditional model (rows, 99, columns)."""
        return self._drawn[self._finite]

    @cached_property
    def off(self) -> float:
        """The share of draws that are not finite; of a conditional model, the share of rows with such a draw."""
        return 1 - float(self._finite.mean())

    @cached_property
    def draws_log_p(self) -> np.ndarray:
        """Log-densities of draws, (draws,), or (rows, 99)."""
        log_p = self.model.log_p(self.draws.reshape(-1, *self.model.event), self.contexts)
        return log_p.reshape(self.draws.shape[:-1])

    @cached_property
    def ones(self) -> np.ndarray:
        """One draw for each row of a conditional model; otherwise all draws."""
        return self.draws[:, 0] if self.conditional else self.draws

    @cached_property
    def numbers(self) -> tuple[list[str], list[np.ndarray]]:
        """Names of features, and these features of `rows` and of `ones`."""
        return features(self.columns, self.rows, self.ones)

    @cached_property
    def _chosen(self) -> np.ndarray:
        total, most = len(self.all_rows), self._samples
        if self.conditional:
            most = min(CONDITIONAL, max(NUMBERS // (PER_ROW * len(self.columns)), 1))
        return np.arange(total) if total <= most else np.sort(self.random(0).choice(total, most, replace=False))

    @cached_property
    def _finite(self) -> np.ndarray:
        return np.isfinite(self._drawn).reshape(len(self._drawn), -1).all(1)

    @cached_property
    def _drawn(self) -> np.ndarray:
        """All draws, also those that are not finite."""
        key, event, drawn = self.key(1), self.model.event, []
        if self.conditional:
            contexts = self.all_contexts[self._chosen]
            for piece in pieces_of(len(contexts), (PER_ROW, *event)):
                some = contexts[piece]
                drawn.append(self.model.draw(jax.random.fold_in(key, piece.start), len(some) * PER_ROW, some))
        else:
            for piece in pieces_of(self._samples, event):
                n = min(piece.stop, self._samples) - piece.start
                drawn.append(self.model.draw(jax.random.fold_in(key, piece.start), n, self.all_contexts))
        draws = flat(np.concatenate(drawn))
        return draws.reshape(len(self._chosen), PER_ROW, -1) if self.conditional else draws


def as_numbers(column: Column, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the numbers that stand for a column of flat rows (..., columns), as networks see them, by name."""
    values, names = x[..., column.place], [f"cos {column.name}", f"sin {column.name}"]
    if column.classes:
        names = [f"{column.name} = {column.code(code)}" for code in range(column.classes)]
    elif not column.period:
        return {column.name: values}
    values = values.astype(float) if values.dtype.kind in "biu" else values
    region = Region(period=np.array([column.period]), classes=np.array([column.classes]))
    return dict(zip(names, seen(region, values.reshape(-1, 1), np).T.reshape(len(names), *values.shape), strict=True))


def features(columns: list[Column], *samples: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    """Return names of features, and all columns of flat samples as features, (..., features); without rare codes, and without
    the last common code, which follows from the others."""
    names, numbers = list[str](), list[list[np.ndarray]]()
    for column in columns:
        by_name = [as_numbers(column, x) for x in samples]
        common = list(by_name[0])
        if column.classes:
            common = [name for name in common if all(numbers_[name].sum() >= COMMON for numbers_ in by_name)]
            common = common[: max(len(common) - 1, 1)]
        names += common
        numbers += [[numbers_[name] for numbers_ in by_name] for name in common]
    return names, [np.stack([feature[i] for feature in numbers], -1) if numbers else x[..., :0] for i, x in enumerate(samples)]
