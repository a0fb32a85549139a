"""Tables whose model is of any columns given any others, `flows.AnySubset`: rows with gaps are drawn, completed, ranked and
asked about. Roles of columns are the context of the model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
from scipy.special import logsumexp

from flows.conditionals.layout import ABSENT, ASKED, GIVEN
from flows.core import FlowsError, Memo, as_context, as_key, in_pieces, warn_user
from flows.distributions.any_subset import AnySubset
from flows.distributions.conditional import expectation_of, gaps
from flows.results.frames import Frame, check_columns, column_at, listed, looked_at, one_row, returned
from flows.results.held_out import Kept, Scored
from flows.results.pieces import by_pieces
from flows.results.result import FitResult
from flows.tables.fields import Field, encoded_rows
from flows.tables.kinds import Category, Ignored
from flows.tables.kinds.dtypes import combined
from flows.tables.schema import Schema

PIECES = 2_064, 256  # rows that are filled together, the last piece filled up: two programs at most
PATTERNS = 2  # sets of columns of a row held out, next to those it has, by which the usual score is learnt

_expectations = Memo(size=16)


def has_roles(result: FitResult) -> bool:
    """Return whether the context of a model is values of columns, and which are there."""
    return len(as_context(result.context_dim) or ()) == 2


def for_schema(model: Any, schema: Schema) -> Any:
    """Return an `AnySubset` with the columns of a schema, unless it has columns."""
    if model.constructor is not AnySubset or model.arguments["columns"]:
        return model
    settings = {name: value for name, value in model.arguments.items() if name != "columns"}
    columns = (schema[name].conditional(name, schema.complete(name)) for name in schema.columns)
    return AnySubset(*columns, **settings)


def without_codes_of_gaps(schema: Schema, before: Schema | None) -> Schema:
    """Return a schema in which gaps are missing values of a category, unless the schema before it had them among its values."""
    learnt = [name for name in schema.codes if before is None or getattr(before[name], "values", None) is None]
    codes = {name: cast(Category, schema[name]) for name in learnt}
    kinds = {
        name: Category([value for value in kind.known if value is not None], kind.other)
        for name, kind in codes.items()
        if None in kind.known
    }
    return schema.replace(kinds)


def check_there(rows: Any, schema: Schema) -> None:
    """Refuse a table without a value, and a column without one."""
    there = np.asarray(_asked(rows.context).any(0))
    if not there.all():
        empty = [name for name, some in zip(schema.columns, there, strict=True) if not some]
        raise FlowsError(
            f"tables.fit: {listed(empty)} {'is' if len(empty) == 1 else 'are'} empty in all rows; expected a value. Leave such "
            "columns out, or give them the kind Ignored()"
        )


def without_gaps(schema: Schema, frame: Any, what: str) -> Frame:
    """Return the rows of a frame without gaps; a warning counts the others."""
    table = looked_at(frame, what)
    lacking = np.any([np.zeros(table.rows, bool), *schema.gaps(table).values()], 0)
    if lacking.all():
        raise FlowsError(f"{what}: all {table.rows} rows have a gap; expected rows without")
    if lacking.any():
        warn_user(f"{what}: {int(lacking.sum())} of {table.rows} rows are left out, as they have gaps")
    return table.taken(np.flatnonzero(~lacking)) if lacking.any() else table


def known_of(schema: Schema, values: Any) -> np.ndarray:
    """The modelled columns of a dict of values or of a frame, which may lack some of them: (rows, d), NaN where there is no
    value."""
    table = looked_at(one_row(str(schema.fitted_to), values) if isinstance(values, Mapping) else values, "given")
    check_columns(table, (), schema.columns, "given")
    names = [name for name in schema.columns if name in table.places]
    x = np.full((table.rows, len(schema.columns)), np.nan)
    if names:
        fields = {name: schema.complete(name) for name in names}
        x[:, [schema.columns.index(name) for name in names]] = encoded_rows(fields, names, table, "given", refuse_gaps=False).x
    return x


def drawn(draw: Callable, schema: Schema, key: Any, n: int, condition: Any) -> Any:
    """A frame of n draws; n for each row of a condition, which are its values and draws of the others.

    Args:
        draw: of a key, a number, and contexts, for each of which that many rows are drawn.
        condition: a dict of values, a frame, or None.
    """
    x = np.full((1, len(schema.columns)), np.nan) if condition is None else known_of(schema, condition)
    rows, known = draw(key, n, gaps(x, fill=True)[1]), np.repeat(x, n, 0)
    return schema.decode(np.where(np.isnan(known), rows, known))


def imputed(draw: Callable, result: FitResult, schema: Schema, frame: Any, rng: Any) -> Any:
    """The frame with its gaps filled, as `TableResult.impute` says."""
    table = looked_at(frame, "impute")
    rows = schema.rows(table, roles=True)
    missing = ~_asked(rows.context)
    masks = dict(zip(schema.columns, missing.T, strict=True))
    masks |= {name: schema.complete(name).encoded(name, table, "impute").gaps for name in schema.constants}
    if not any(mask.any() for mask in masks.values()):
        warn_user("impute: the frame has no gaps; a copy of it is returned")
    x, some = rows.x.astype(np.float64), np.flatnonzero(missing.any(1))
    if len(some):
        contexts = gaps(np.where(missing, np.nan, x)[some], fill=True)[1]
        filled = expected(result, contexts) if rng is None else draw(as_key(rng), 1, contexts)
        x[some] = np.where(missing[some], filled, x[some])
    values = dict(zip(schema.columns, x.T, strict=True))
    native = table.native.copy() if hasattr(table.native, "iloc") else table.native
    for name, mask in masks.items():
        if mask.any():
            place, full = table.places[name], schema.native(name, values.get(name, np.zeros(len(x))), schema.fitted_to)
            column = combined(column_at(native, place), full, mask)
            if hasattr(native, "isetitem"):
                native.isetitem(place, column)
            else:
                native = native.with_columns(column.alias(name))
    return returned(native, table.header.library)


def expected(result: FitResult, contexts: np.ndarray) -> np.ndarray:
    """The mean of each number, the likeliest code and the direction of each angle given what is known, (rows, d)."""

    def make() -> tuple[Callable, Callable]:
        function, event, likeliest = expectation_of(result.init_fun, result.input_dim)
        return jax.jit(lambda params, contexts: in_pieces(function, params, contexts, event=event)), likeliest

    function, likeliest = _expectations((result.init_fun, result.input_dim), make)
    means = by_pieces(lambda piece: function(result.params, piece.astype(np.float32)).T, contexts, sizes=PIECES)
    return likeliest(np.asarray(means, np.float64).T)


def _asked(contexts: Any) -> np.ndarray:
    return np.asarray(contexts[:, 1] == ASKED)


def asked_of_roles(x: np.ndarray, there: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Contexts that ask some of the columns that are there, given the others, (rows, 2, d)."""
    return np.stack([x, np.where(there, np.where(asked, ASKED, GIVEN), ABSENT)], 1)


def given_others(result: FitResult, x: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """log p(x_j | the other columns that are there), (rows, d), one pass for each column; NaN where there is no value."""
    there, columns = _asked(contexts), np.arange(x.shape[1])
    scores = [np.asarray(result.log_prob(x, context=asked_of_roles(x, there, columns == j)), float) for j in columns]
    return np.where(there, np.stack(scores, 1), np.nan)


def scores_and_p_values(result: FitResult, x: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """log p of rows and their p-values, (2, rows), which rank log p less what is usual for the columns that a row has."""
    held_out, usual = gap_scores(result)
    scores, usual = np.atleast_2d(np.asarray(result.scores_of(x, contexts), float)), np.atleast_2d(usual)
    ranked = scores - usual[:, :-1] @ _asked(contexts).T - usual[:, -1:]
    return np.stack([logsumexp(scores, axis=0) - np.log(len(scores)), result.p_values_of(ranked, held_out)])


def usual_of(result: FitResult, contexts: np.ndarray | None) -> Any:
    """The log p that is usual for the columns that rows have, (rows,), the mean over members; 0 for other models."""
    if contexts is None:
        return 0.0
    usual = np.atleast_2d(gap_scores(result)[1]).mean(0)
    return _asked(contexts) @ usual[:-1] + usual[-1]


def with_gaps(x: np.ndarray, contexts: np.ndarray | None) -> np.ndarray:
    """Rows with NaN where a value is absent."""
    return x if contexts is None else np.where(_asked(contexts), x, np.nan)


def gap_scores(result: FitResult) -> list[np.ndarray]:
    """Scores of the rows held out less what is usual for their columns, (..., rows) as `result.scores`, and what is usual,
    (..., d + 1): numbers for the columns and for all, of which the sum is nearest to log p. A result computes them once."""
    shape, scored = result.scores.shape, cast(Scored, result.scored)
    if scored.by_gaps is None:
        if result.kept is None:
            raise FlowsError("p_value: the file has no scores of rows with gaps; save the result of tables.fit again")
        parts = [_usual(judge) for judge in result.judges()]
        scored = result.scored = scored._replace(by_gaps=np.reshape(parts, (*shape[:-1], -1)))
    return np.split(cast(np.ndarray, scored.by_gaps), shape[-1:], -1)


def _usual(judge: FitResult) -> np.ndarray:
    x, contexts, _ = cast(Kept, judge.kept)
    there, rng = _asked(contexts), np.random.default_rng(0)
    some = [there & (rng.uniform(size=there.shape) < rng.uniform(size=(len(x), 1))) for _ in range(PATTERNS)]
    fewer = [np.asarray(judge.log_prob(x, context=asked_of_roles(x, mask, mask)), float) for mask in some]
    scores, masks = np.concatenate([judge.scores, *fewer]), np.concatenate([there, *some])
    design, finite = np.concatenate([masks, np.ones((len(masks), 1))], 1), np.isfinite(scores)
    usual = np.linalg.lstsq(design[finite], scores[finite], rcond=None)[0]
    return np.concatenate([judge.scores - design[: len(x)] @ usual, usual])


def disagreement(result: FitResult) -> float:
    """The mean difference of log p by two orders of the columns, in nats, over rows held out: the second half given the first,
    and the first given the second."""
    judge = result.judges()[0]
    x, contexts, _ = cast(Kept, judge.kept)
    there, first = _asked(contexts), np.arange(x.shape[1]) < x.shape[1] // 2

    def by(half: np.ndarray) -> np.ndarray:
        alone, rest = asked_of_roles(x, there & half, half), asked_of_roles(x, there, ~half)
        return np.asarray(judge.log_prob(x, context=alone) + judge.log_prob(x, context=rest), float)

    return float(np.nanmean(np.abs(by(first) - by(~first))))


def conditional(result: FitResult, schema: Schema, asked: Sequence[str], known: Sequence[str]) -> tuple[Schema, FitResult]:
    """The schema and the result of some columns given others, which may be gaps; the rest is not read."""
    if not asked or len({*asked, *known}) < len(asked) + len(known):
        raise FlowsError(f"conditional: asked is {asked}, and given {known}; expected one column that is asked, and each once")
    for name in (*asked, *known):
        if name not in schema.columns:
            raise FlowsError(
                f"conditional: {name!r:.60} is not a column that is modelled; expected some of {listed(schema.columns)}"
            )
    fields = {name: schema.complete(name) for name in schema}
    others = {name: Field(Ignored(), fields[name].label, why="not asked") for name in schema if name not in (*asked, *known)}
    of = Schema.made({**fields, **others}, tuple(known), schema.fitted_to)
    return of, result.conditional(list(of.columns), list(of.condition), gaps=True)
