"""The result of an ensemble: the mixture of its members, and each member alone."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial, reduce
from operator import getitem, itemgetter
from typing import Any

import jax
import numpy as np

from flows.core import (
    Array,
    DistributionInit,
    FlowsError,
    as_array,
    as_context,
    as_event,
    as_key,
    functions_of,
    part_of,
    replaced,
    structure_of,
    value_at,
)
from flows.persistence.models import TEXT
from flows.results.columns import Inputs
from flows.results.result import FitResult


class EnsembleResult(FitResult):
    """A fitted ensemble: the mixture of its members, with equal weights, as a distribution like any other.

    Attributes:
        members: the number of members.
        member: the model of one member, as a constructor's value.
        path: the path of the mixture of members in params.
        folds: whether each member was fitted without some of the rows, and is judged by these.
        history: as in `FitResult`, with a leading axis of members.
    """

    path: tuple[str, ...]

    @property
    def members(self) -> int:
        return self._mixture.copies

    @property
    def member(self) -> DistributionInit:
        return replaced(self.init_fun, self.path, self._mixture.value)

    @property
    def folds(self) -> bool:
        return np.ndim(self.scores) > 1 if self.kept is None else self.kept.x.ndim > 1 + len(as_event(self.input_dim))

    @cached_property
    def _mixture(self) -> Any:
        """The piece of the mixture: one member, and its number of copies."""
        pieces = structure_of(value_at(self.init_fun, self.path)).pieces
        if not pieces or pieces[0].copies is None:
            raise FlowsError(
                f"the model has no mixture of members at {'/'.join(self.path) or 'its top'}: {self.init_fun!r:.70}"
            )
        return pieces[0]

    def log_pdfs(self, params: Any, inputs: Any, *, context: Any = None, rng: Any = None) -> Array:
        """log p(x) of every member, (members, batch), in nats: where members differ, the data do not decide.

        Args:
            params: params of the ensemble.
            inputs: (batch, *event).
            context, rng: as in log_pdf; each member has a separate key.
        """
        mixture = params
        for name in (*self.path, "components"):
            if not isinstance(mixture, dict) or name not in mixture:
                raise FlowsError("log_pdfs: params do not belong to this ensemble; give result.params, or params made of these")
            mixture = mixture[name]
        keys = None if rng is None else jax.random.split(as_key(rng), self.members)

        def every(params: Any, x: Any, context: Any = None) -> Array:
            return _log_pdfs(self.log_pdf_of_member, self.path, self.members, params, as_array(x, "inputs"), context, keys)

        reads = Inputs(self)
        rows = reads.rows(inputs)
        if keys is not None:
            return every(params, as_array(rows, "inputs"), **reads.context(context))
        return reads.scored(every, params, rows if isinstance(rows, np.memmap) else as_array(rows, "inputs"), context)

    @property
    def log_pdf_of_member(self) -> Callable:
        """log_pdf of any member, a function of `params_of_member(i)` and rows."""
        return self._member_functions[0]

    @cached_property
    def _member_functions(self) -> tuple[Callable, ...]:
        part = part_of(self.member, as_event(self.input_dim), as_context(self.context_dim))
        return functions_of(part, self.params_of_member(0))

    def _stored(self) -> dict[str, Any]:
        stored = super()._stored()
        return {**stored, TEXT: {**stored[TEXT], "path": list(self.path)}}

    def params_of_member(self, member: int) -> Any:
        """Return the params of one member, counted from 0."""
        components = reduce(getitem, (*self.path, "components"), self.params)
        return _with(self.params, self.path, jax.tree.map(lambda leaf: leaf[member], components))

    def _held_out_scores(self) -> Any:
        return np.stack([judge.scores for judge in self.judges()]) if self.folds else super()._held_out_scores()

    def judges(self) -> Sequence[FitResult]:
        if not self.folds:
            return super().judges()
        fields = *self._member_functions, self.member, self.input_dim, self.context_dim
        return [
            FitResult(self.params_of_member(i), *fields, kept=jax.tree.map(itemgetter(i), self.kept), turn=self.turn)
            for i in range(self.members)
        ]

    def scores_of(self, x: Any, context: Any) -> Any:
        return self.log_pdfs(self.params, x, context=context) if self.folds else self.log_prob(x, context=context)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _log_pdfs(
    log_pdf: Callable, path: tuple[str, ...], members: int, params: Any, inputs: Array, context: Any, keys: Any
) -> Array:
    def one(member_params: Any, key: Any) -> Array:
        return log_pdf(_with(params, path, member_params), inputs, context=context, **({} if key is None else {"rng": key}))

    return jax.vmap(one, axis_size=members)(reduce(getitem, (*path, "components"), params), keys)


def _with(params: Any, path: tuple[str, ...], new: Any) -> Any:
    """Return `params` with `new` at `path`."""
    return new if not path else {**params, path[0]: _with(params[path[0]], path[1:], new)}
