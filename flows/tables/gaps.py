"""Tables whose model is of any columns given any others, `flows.AnySubset`: rows with gaps are drawn, completed and asked
about. Roles of columns are the context of the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import jax
import numpy as np

from flows.core import FlowsError, Memo, as_context, as_key, in_pieces, warn_user
from flows.distributions.any_subset import AnySubset
from flows.distributions.conditional import expectation_of, gaps
from flows.results.frames import Frame, column_at, listed, looked_at, one_row, returned
from flows.results.pieces import by_pieces
from flows.results.result import FitResult
from flows.tables.fields import Field, encoded_rows
from flows.tables.kinds import Category, Ignored
from flows.tables.kinds.dtypes import combined, gaps_of
from flows.tables.ranks import asked
from flows.tables.schema import Schema

PIECES = 2_064, 256  # rows that are filled together, the last piece filled up: two programs at most

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
    fields = {name: schema.complete(name) for name in schema}
    for name in schema.codes:
        kind = cast(Category, schema[name])
        if None in kind.known and (before is None or getattr(before[name], "values", None) is None):
            values = [value for value in kind.known if value is not None]
            fields[name] = replace(fields[name], kind=Category(values, kind.other))
    return Schema.made(fields, schema.condition, schema.fitted_to)


def check_there(rows: Any, schema: Schema) -> None:
    """Refuse a table without a value, and a column without one."""
    there = np.asarray(asked(rows.context).any(0))
    if not there.all():
        empty = [name for name, some in zip(schema.columns, there, strict=True) if not some]
        raise FlowsError(
            f"tables.fit: {listed(empty)} {'is' if len(empty) == 1 else 'are'} empty in all rows; expected a value. Leave such "
            "columns out, or give them the kind Ignored()"
        )


def without_gaps(schema: Schema, frame: Any, what: str) -> tuple[Frame, np.ndarray]:
    """Return the rows of a frame without gaps, and their places; a warning counts the others. A frame without gaps stays."""
    table = looked_at(frame, what)
    gaps_by_column = schema.gaps(table)
    lacking = np.any([np.zeros(table.rows, bool), *gaps_by_column.values()], 0)
    places = np.flatnonzero(~lacking)
    if not lacking.any():
        return table, places
    by_column = ", ".join(f"{name!r} in {int(mask.sum())}" for name, mask in gaps_by_column.items())
    if lacking.all():
        raise FlowsError(f"{what}: all {table.rows} rows have a gap, in {by_column}; ignore these columns, or fill them")
    warn_user(f"{what}: {int(lacking.sum())} of {table.rows} rows are left out, as they have gaps, in {by_column}")
    return table.taken(places), places


def known_of(schema: Schema, values: Any) -> np.ndarray:
    """The modelled columns of a dict of values or of a frame, which may lack some of them: (rows, d), NaN where there is no
    value."""
    table = looked_at(one_row(str(schema.fitted_to), values) if isinstance(values, Mapping) else values, "given")
    if unknown := [name for name in table.places if name not in schema]:
        raise FlowsError(f"given: {listed(unknown)} is not a column of the model; expected some of {listed(schema.columns)}")
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
    missing = ~asked(rows.context)
    masks = dict(zip(schema.columns, missing.T, strict=True))
    masks |= {name: schema.complete(name).encoded(name, table, "impute").gaps for name in schema.constants}
    if not any(mask.any() for mask in masks.values()):
        warn_user("impute: the frame has no gaps; a copy of it is returned")
    of_gaps = [name for name in schema.codes if None in cast(Category, schema[name]).known]
    if stay := [name for name in of_gaps if gaps_of(table.column(name)).any()]:
        warn_user(f"impute: gaps of {listed(stay)} stay, as the schema has None among the values; leave it out to fill them")
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
