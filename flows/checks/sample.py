"""Rows beside draws: what all checks of a call share."""

import math
from functools import cached_property
from typing import Any

import jax
import numpy as np

from flows.checks.features import features
from flows.checks.model import Model
from flows.core import pieces_of
from flows.diagnostics.arrays import generator

EACH = 99  # draws for each row of a conditional model
CONDITIONAL = 2_000  # rows of one that have these
NUMBERS = 2**25  # in all of these draws
LEAST = 100  # rows, below which nobody should believe a p-value


class Sample:
    """Rows and draws of a model, flat, in the dtype of the draws.

    Attributes:
        model: what is checked.
        all_rows, all_contexts: as they were given, (rows, *event) and None, (*context,) or (rows, *context).
        train: rows that the model was fitted to, with their contexts beside them, flat; or None.
        conditional: whether each row has a context of its own.
        columns: what the entries of a flat row are.
    """

    def __init__(self, model: Model, rows: np.ndarray, contexts: np.ndarray | None, train: Any, key: Any, samples: int):
        shape = model.context_shape or ()
        if contexts is not None and contexts.ndim > len(shape) and (contexts == contexts[:1]).all():
            contexts = contexts[0]  # one for all
        self.model, self.all_rows, self.all_contexts, self.train = model, rows, contexts, train
        self.conditional = contexts is not None and contexts.ndim > len(shape)
        self.columns = model.columns
        self.kept = dict[str, np.ndarray]()  # for pictures
        self._key, self._samples = key, samples

    def key(self, purpose: int) -> Any:
        """One that depends on the purpose alone, so that a check finds the same whatever others are asked for."""
        return jax.random.fold_in(self._key, purpose)

    def random(self, purpose: int) -> np.random.Generator:
        return generator(self.key(purpose))

    @cached_property
    def log_p(self) -> np.ndarray:
        """Log-densities of all rows, (rows,), in nats. A triple draws first: draws show whether the rows are as wide."""
        if self.model.result is None:
            _ = self._drawn
        return self.model.log_p(self.all_rows, self.all_contexts)

    @cached_property
    def report(self) -> Any:
        """The `RowReport` of all rows; None without a result."""
        given = {} if self.all_contexts is None else {"context": self.all_contexts}
        return None if self.model.result is None else self.model.result.verify(self.all_rows, **given)

    @cached_property
    def places(self) -> np.ndarray:
        """Tells which rows stand beside draws, in their order: at most as many as draws, of a conditional model 2,000."""
        return self._chosen[self._finite] if self.conditional else self._chosen

    @cached_property
    def rows(self) -> np.ndarray:
        """These rows, (rows, columns)."""
        return flat(self.all_rows[self.places]).astype(self._drawn.dtype)

    @cached_property
    def contexts(self) -> Any:
        """Theirs, (rows, *context), of a conditional model; otherwise the one for all, or None."""
        return self.all_contexts[self.places] if self.conditional and self.all_contexts is not None else self.all_contexts

    @cached_property
    def draws(self) -> np.ndarray:
        """(draws, columns), or of a conditional model (rows, 99, columns); those that are finite."""
        return self._drawn[self._finite]

    @cached_property
    def off(self) -> float:
        """The share of draws that are not finite, or of a conditional model of rows with such a draw."""
        return 1 - float(self._finite.mean())

    @cached_property
    def draws_log_p(self) -> np.ndarray:
        """log p of draws, (draws,), or (rows, 99)."""
        contexts = np.repeat(self.contexts, EACH, 0) if self.conditional else self.contexts
        found = self.model.log_p(self.draws.reshape(-1, *self.model.event), contexts)
        return found.reshape(self.draws.shape[:-1])

    @cached_property
    def ones(self) -> np.ndarray:
        """One draw for each row of a conditional model; otherwise all draws."""
        return self.draws[:, 0] if self.conditional else self.draws

    @cached_property
    def numbers(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Rows, and `ones`, with angles and codes as numbers, and what these are."""
        names, (rows, draws) = features(self.columns, self.rows, self.ones)
        return names, rows, draws

    @cached_property
    def _chosen(self) -> np.ndarray:
        total, most = len(self.all_rows), self._samples
        if self.conditional:
            most = min(CONDITIONAL, max(NUMBERS // (EACH * len(self.columns)), 1))
        return np.arange(total) if total <= most else np.sort(self.random(0).choice(total, most, replace=False))

    @cached_property
    def _finite(self) -> np.ndarray:
        return np.isfinite(self._drawn).reshape(len(self._drawn), -1).all(1)

    @cached_property
    def _drawn(self) -> np.ndarray:
        """All draws, also those that are not finite."""
        key, event = self.key(1), self.model.event
        contexts, total = self.all_contexts, self._samples
        if self.conditional and contexts is not None:
            contexts = np.repeat(contexts[self._chosen], EACH, 0)
            total = len(contexts)
        drawn = []
        for piece in pieces_of(total, event):
            given = contexts[piece] if self.conditional and contexts is not None else contexts
            drawn.append(self.model.draw(jax.random.fold_in(key, piece.start), min(piece.stop, total) - piece.start, given))
        draws = flat(np.concatenate(drawn))
        return draws.reshape(len(self._chosen), EACH, -1) if self.conditional else draws


def flat(x: Any) -> np.ndarray:
    array = np.asarray(x)
    return array.reshape(len(array), math.prod(array.shape[1:]))  # of no rows, too
