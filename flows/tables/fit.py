"""`tables.fit`: from a frame to a `TableResult`. It encodes the frame, makes the model, and hands both to `flows.fit`, or to
`flows.select` where there are several models to choose from.

The model is one distribution for the codes, one for the angles and one for the numbers, joined by the chain rule.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, Unpack

import numpy as np

from flows.core import DistributionInit, DistributionLike, FlowsError, declares, explained_call
from flows.distributions.categorical import Categorical
from flows.distributions.joint import ChainRule
from flows.models.splines import circular_splines
from flows.results.frames import Frame, errors_of, frame_of, less_offsets, library_of, listed, looked_at, numbers_of
from flows.results.result import FitResult
from flows.tables.fields import names_of
from flows.tables.gaps import check_there, for_schema, without_codes_of_gaps, without_gaps
from flows.tables.infer import infer_schema
from flows.tables.ranks import disagreement, gap_scores
from flows.tables.result import TableResult, steps_of
from flows.tables.schema import Schema
from flows.training.data.read import is_iterable
from flows.training.data.rounding import spiked
from flows.training.devices import devices_of
from flows.training.fit import TableKeywords, hands_on
from flows.training.fit import fit as fit_rows
from flows.training.options import one_of
from flows.training.select import select, suggested

WIDTHS: tuple[tuple[int, ...], ...] = ((), (64, 64))  # of networks of codes alone, which are compared
Models = DistributionLike | Sequence[DistributionLike] | Mapping[str, DistributionLike] | TableResult | Literal["auto"]


@explained_call("tables.fit(0, frame)")
@hands_on(TableKeywords)
def fit(
    rng: Any,
    frame: Any,
    schema: Schema | None = None,
    *,
    model: Models = "auto",
    condition: Sequence[str] | str = (),
    weights: Any = None,
    gaps: str = "refuse",
    validation: Any = None,
    folds: int | None = None,
    groups: Any = None,
    order: Any = None,
    total_minutes: float | None = None,
    checkpoint: Any = None,
    callbacks: Any = (),
    **keywords: Unpack[TableKeywords],
) -> TableResult:
    """Fit one exact density to the rows of a table, whatever its columns hold: numbers with bounds and steps, counts,
    categories, angles, dates.

    log p(row) = log P(codes) + log p(angles | codes) + log p(numbers | codes, angles), each given the condition: a
    `flows.Categorical` of the categories, an autoregressive layer of circular splines for the angles, and `model` for the
    numbers and dates, behind their bounds, and with noise as wide as their steps.

    Args:
        rng: key or seed.
        frame: of pandas, polars, pyarrow, or another library that narwhals knows; one that is lazy is collected. Or an iterable
            of frames, such as `flows.large.frames`, which starts again with each `iter()`, with a `schema` that was fitted to a
            frame, one `model`, `steps_per_epoch` and a frame to validate on; rows are encoded as they come.
        schema: what the columns hold; by default what `infer_schema` suggests. The frame completes it.
        model: the model of the numbers: a distribution, such as `flows.Flow(flows.NSF())`; a list or a dict of several, from
            which `flows.select` takes the best, or their stack; "auto" for the list that `flows.select` has for a table of this
            size. For categories alone, "auto" compares a linear model with a network. Or a `TableResult`, also from a file,
            which is fitted further, with its schema, by rows like its own: a new category is refused.
        condition: names of the columns on which the others depend. The condition itself has no density.
        weights: (rows,), 0 or more, or the name of a column, which is then not modelled.
        gaps: "refuse" a row without a number, an angle or a date, or "drop" it. A gap in a category is a value like others.
            `model=flows.AnySubset()`, with columns for the schema, takes rows with gaps, which may be of any columns: it is one
            model of each column given any others, and assumes that whether a value is missing does not depend on the value,
            given what is there. A gap in a category is then missing, too, unless a given schema has None among its values.
        validation: the share of rows that are held out, or a frame to validate on.
        batch_size, max_epochs, max_minutes, patience, learning_rate, weight_decay, mesh, verbose, steps_per_epoch: as in
            `flows.fit`.
        groups, order: as in `flows.fit`: of rows, or the name of a column, which is then not modelled.
        folds, checkpoint, callbacks: as in `flows.fit`, for a single model.
        total_minutes: as in `flows.select`; for a single model it is a limit, too.

    Returns:
        A `TableResult`.

    Errors:
        FlowsError, TypeError: a frame that does not fit the schema; the row, the column, the value, and what to do. An option
            that a choice among several models does not have. As in `flows.fit`.

    Source:
        Uria, Murray and Larochelle, "RNADE", 2013, arXiv:1306.0186, for densities one column after the other.

    Example:
        >>> import numpy as np, pandas as pd
        >>> import flows
        >>> from flows import tables
        >>> rng = np.random.default_rng(0)
        >>> frame = pd.DataFrame({"colour": rng.choice(["red", "green"], 300), "size": rng.lognormal(size=300).round(2)})
        >>> model = flows.Normal(conditioner=flows.conditioners.MLP(8))  # it takes a context, the colour
        >>> result = tables.fit(0, frame, model=model, max_epochs=2, folds=1, verbose=0)
        >>> result.draw(1, 2).columns.tolist()
        ['colour', 'size']
    """
    one_of("refuse", "drop")(gaps, "tables.fit: gaps")
    with devices_of(keywords.get("mesh"), "tables.fit"), ExitStack() as units:
        names = names_of([condition] if isinstance(condition, str) else condition)
        limits = [minutes for minutes in (keywords.get("max_minutes"), total_minutes) if minutes is not None]
        of_one: Any = {"folds": folds, "checkpoint": checkpoint, "callbacks": callbacks}
        apart = {"weights": weights, "groups": groups, "order": order}
        if is_iterable(frame):
            settings: Any = {**of_one, **apart, **keywords, "max_minutes": min(limits, default=None)}
            return _fit_stream(rng, frame, schema, model, names, gaps, validation, settings)
        table = looked_at(frame, "tables.fit")
        of_rows = {option: of_rows_of(table, option, values, names) for option, values in apart.items()}
        ends = validation is None or bool(np.isscalar(validation))  # rows of validation may lie beyond
        places = {name: option for option, name in apart.items() if isinstance(name, str)}
        if isinstance(model, FitResult):
            raise TypeError("tables.fit: model is a FitResult, which has no schema; give the TableResult that it is of")
        fitted = model if isinstance(model, TableResult) else None
        if fitted is not None:
            roles, schema = fitted.any_given_any, _schema_again(fitted.schema, schema, names, places)
        else:
            roles = _any_given_any(model, names or getattr(schema, "condition", ()))
            schema, before = completed(table, schema, names, places, ends), schema
            schema = without_codes_of_gaps(schema, before) if roles else schema
        if gaps == "drop":
            table, of_rows = _without_gaps(table, schema, of_rows)
        rows = schema.rows(table, roles=roles)
        shared: Any = {"context": rows.context, **of_rows, **keywords, **({} if roles or fitted else _cells(schema))}
        if roles:
            check_there(rows, schema)
        if fitted is not None:
            models: Any = fitted.result
        elif roles:
            models = whole_models(model, lambda one: for_schema(one, schema))
        else:
            models = models_of(schema, model, rows.x[:, len(rows.x[0]) - len(schema.numbers) :], rows.context is not None)
        validation = _validation(validation, schema, roles)
        units.enter_context(less_offsets(schema.offsets))
        data = frame_of(
            library_of(table.native), schema.columns, list(rows.x.T), len(rows.x)
        )  # so that warnings and errors name columns
        if isinstance(models, dict):
            _refuse_of_several(len(models), **{**of_one, "callbacks": callbacks or None})
            shares = {} if validation is None else {"validation": validation}
            selection = select(rng, models, data, total_minutes=total_minutes, **shares, **shared)
            return _finished(TableResult(schema, selection.best, selection))
        shared["max_minutes"] = min(limits, default=None)
        return _finished(TableResult(schema, fit_rows(rng, models, data, validation=validation, **of_one, **shared)))


class Encoded:
    """The rows of an iterable of frames, encoded as they come: frames of encoded columns, or pairs with the context."""

    def __init__(self, frames: Iterable, schema: Schema, roles: bool):
        self.frames, self.schema, self.roles = frames, schema, roles

    def __iter__(self) -> Iterator[Any]:
        library = "polars" if self.schema.fitted_to == "polars" else "pandas"
        for number, frame in enumerate(self.frames):
            with errors_of(f"tables.fit: part {getattr(self.frames, 'part', number)}"):
                rows = self.schema.rows(frame, roles=self.roles)
            data = frame_of(library, self.schema.columns, list(rows.x.T), len(rows.x))
            yield data if rows.context is None else (data, rows.context)


def _fit_stream(
    rng: Any, frames: Iterable, schema: Any, model: Any, names: tuple[str, ...], gaps: str, validation: Any, settings: dict
) -> TableResult:
    """Fit to an iterable of frames, whose rows are encoded as they come."""
    models: Any
    what = "tables.fit: frame is an iterable of frames, and"
    if gaps == "drop":
        raise FlowsError(f"{what} gaps is 'drop'; drop rows with gaps in these frames")
    if isinstance(model, TableResult):
        schema, roles, models = _schema_again(model.schema, schema, names, {}), model.any_given_any, model.result
    elif not isinstance(schema, Schema) or schema.fitted_to is None:
        raise FlowsError(
            f"{what} schema {'was not fitted to a frame' if isinstance(schema, Schema) else f'is {schema!r:.60}'}; expected "
            "one that was, such as infer_schema(frame) of a million rows; Category(other=) takes values that come later"
        )
    elif names and names != schema.condition:
        raise FlowsError(f"{what} condition is {names!r:.100}, where the schema has {schema.condition!r:.100}; leave it out")
    elif isinstance(model, str | Mapping | list) and (schema.numbers or model != "auto"):
        raise FlowsError(f"{what} model is {model!r:.80}; expected one model, such as flows.Flow(flows.NSF())")
    elif roles := _any_given_any(model, schema.condition):
        schema = without_codes_of_gaps(schema, schema)
        models = for_schema(model, schema)
    else:
        conditional = bool(schema.condition)
        models = models_of(schema, model, np.zeros((1, 0)), conditional) if schema.numbers else joined(schema)
    cells = {} if roles or isinstance(model, TableResult) else _cells(schema)
    held_out = _validation(validation, schema, roles)
    with less_offsets(schema.offsets):
        result = fit_rows(rng, models, Encoded(frames, schema, roles), validation=held_out, **cells, **settings)
    return _finished(TableResult(schema, result))


def _refuse_of_several(count: int, **options: Any) -> None:
    """Refuse options of a single model."""
    for name in (name for name, option in options.items() if option is not None):
        raise FlowsError(
            f"tables.fit: {name} is given, and the best of {count} models is looked for; leave it out, or give one model, such "
            "as model=flows.Flow(flows.NSF())"
        )


def _schema_again(fitted: Schema, schema: Any, names: tuple[str, ...], apart: Mapping[str, str]) -> Schema:
    """The schema of a result from which a fit goes on, which stays as it is."""
    if schema is not None or (names and names != fitted.condition):
        what, value = ("schema", schema) if schema is not None else ("condition", names)
        raise FlowsError(f"tables.fit: {what} is {value!r:.100}, and the schema of the result in model= stays; leave it out")
    for name, option in apart.items():
        if name in fitted and fitted[name].is_read:
            raise FlowsError(f"tables.fit: {option} is {name!r:.60}, which the result models; expected another column")
        fitted = fitted if name in fitted else fitted.ignoring(name, option)
    return fitted


def _any_given_any(model: Any, condition: Sequence[str]) -> bool:
    """Tell whether the model, or each of several, is of any columns given any others."""
    models = list(model.values()) if isinstance(model, Mapping) else model if isinstance(model, list | tuple) else [model]
    roles = [declares(one, "roles") for one in models]
    if not any(roles):
        return False
    if not all(roles):
        raise FlowsError(
            f"tables.fit: model has {models[roles.index(True)]!r:.60} among others; expected it alone, or with such"
        )
    if condition:
        raise FlowsError(
            f"tables.fit: condition is {tuple(condition)!r:.100}, and {models[0]!r:.60} is of any columns given any others; "
            "leave condition out, and ask result.conditional(asked, given)"
        )
    return True


def _finished(table: TableResult) -> TableResult:
    """A table with what rows held out tell of a model of any columns given any others, for its file."""
    if table.any_given_any:
        gap_scores(table.result)
        if len(table.schema.columns) > 1:
            table.result.history["orders"] = np.asarray(disagreement(table.result))
    return table


def completed(table: Frame, schema: Schema | None, names: tuple[str, ...], apart: Mapping[str, str], ends: bool) -> Schema:
    """The schema of a frame, inferred where there is none; with the condition, and without the columns of other options."""
    if schema is None:
        schema = infer_schema(table.without(*apart), names, ends=ends)
    elif not isinstance(schema, Schema):
        raise TypeError(f"tables.fit: schema is a {type(schema).__name__}; expected a tables.Schema, or None")
    elif names and schema.condition and names != schema.condition:
        raise FlowsError(
            f"tables.fit: condition is {names!r:.100}, and the schema has {schema.condition!r:.100}; expected one of them"
        )
    elif names and not schema.condition:
        schema = Schema(schema.kinds, names)
    for name, option in apart.items():
        schema = schema.ignoring(name, option)
    schema = schema.fitted(table)
    if not schema.columns:
        raise FlowsError(
            "tables.fit: no column is left to model, as all are constant, ignored or of the condition; expected one at least:\n"
            f"{schema}"
        )
    if schema.condition and not schema.context_dim:
        raise FlowsError(
            f"tables.fit: the condition, {listed(schema.condition)}, has one value in all rows, so nothing depends on it; "
            "leave it out, or name other columns"
        )
    return schema


def of_rows_of(table: Frame, option: str, values: Any, condition: Sequence[str]) -> Any:
    """Return weights, groups or an order of rows, as `flows.fit` takes them; of a name, the column."""
    if not isinstance(values, str):
        return values
    if values not in table.places:
        raise FlowsError(
            f"tables.fit: {option} is {values!r:.60}, which is not a column of the frame; it has {listed(list(table.places))}"
        )
    if values in condition:
        raise FlowsError(f"tables.fit: {option} is {values!r:.60}, which is a column of the condition; expected another one")
    column, alone = table.column(values), table.without(*(name for name in table.places if name != values))
    if option == "weights":
        return numbers_of(column.to_frame().to_native(), "tables.fit: weights")[:, 0]
    text = str(column.dtype) in ("String", "Object", "Categorical", "Enum")
    if option == "order" and text and (schema := infer_schema(alone)).numbers:  # of dates, perhaps
        return schema.encode(alone)[:, 0]
    return column.to_native()


def _without_gaps(table: Frame, schema: Schema, of_rows: dict[str, Any]) -> tuple[Frame, dict[str, Any]]:
    """The rows without gaps, and their weights, groups or order."""
    for option, values in of_rows.items():
        if values is not None and np.shape(values) != (table.rows,):
            raise FlowsError(f"tables.fit: {option} has shape {np.shape(values)}, expected ({table.rows},), also for gaps")
    whole, places = without_gaps(schema, table, "tables.fit")
    return whole, {name: None if x is None else np.asarray(x)[places] for name, x in of_rows.items()}


def _validation(frame: Any, schema: Schema, roles: bool) -> Any:
    """Rows to validate on, as `flows.fit` takes them; a share, or None, as it is."""
    if frame is None or np.isscalar(frame):
        return frame
    with errors_of("tables.fit: validation"):
        rows = schema.rows(frame, roles=roles)
    return rows.x if rows.context is None else (rows.x, rows.context)


def _cells(schema: Schema) -> dict[str, Any]:
    """The bounds and steps of columns, by name, as `flows.fit` takes them."""
    steps = {name: step for name, step in zip(schema.columns, steps_of(schema), strict=True) if step}
    ends = {name: pair for name, pair in zip(schema.numbers, schema.supports, strict=True) if np.isfinite(pair).any()}
    return {"dequantize": steps or None, "support": ends or None}


def models_of(schema: Schema, model: Any, numbers: np.ndarray, conditional: bool) -> DistributionInit | dict[str, Any]:
    """The model of all columns; several by name, where there are several to choose from.

    Args:
        model: of the numbers, as `tables.fit` takes it.
        numbers: their rows, encoded.
        conditional: whether there is a condition.
    """
    if not schema.numbers:
        return _without_numbers(schema, model)
    if isinstance(model, str) and model == "auto":
        rows, columns = numbers.shape
        known = conditional or bool(schema.codes or schema.angles)
        model = suggested(rows, (columns,), known, spiked(numbers))
    if isinstance(model, str) or not (callable(model) or isinstance(model, Sequence | Mapping)):
        raise TypeError(f'tables.fit: model is {model!r:.80}; expected a distribution of the numbers, several, or "auto"')
    return whole_models(model, lambda number_model: joined(schema, number_model))


def whole_models(model: Any, whole: Callable[[Any], Any]) -> Any:
    """The whole model that each of several models becomes, by name; or of the one model."""
    if isinstance(model, Mapping):
        return {str(name): whole(one) for name, one in model.items()}
    return _named([(repr(one), whole(one)) for one in model]) if isinstance(model, Sequence) else whole(model)


def joined(
    schema: Schema, number_model: DistributionLike | None = None, hidden: tuple[int, ...] = (64, 64)
) -> DistributionInit:
    """The distribution of all columns: of the codes, of the angles given these, and of the numbers given both."""
    blocks = list[tuple[Any, int]]()
    if schema.codes:
        blocks.append((Categorical(*schema.classes, hidden=hidden), len(schema.codes)))
    if schema.angles:
        blocks.append((circular_splines(schema.periods), len(schema.angles)))
    if number_model is not None:
        blocks.append((number_model, len(schema.numbers)))
    distributions, sizes = zip(*blocks, strict=True)
    return distributions[0] if len(blocks) == 1 else ChainRule(*distributions, sizes=sizes)


def _without_numbers(schema: Schema, model: Models) -> DistributionInit | dict[str, Any]:
    """The model of codes and angles alone: for codes alone a linear model and a network are compared."""
    if model != "auto":
        kinds = "categories and angles" if schema.angles else "categories"
        raise FlowsError(
            f"tables.fit: model is {model!r:.80}, a distribution of the numbers, and all columns are {kinds}. Leave it out"
        )
    if schema.angles:
        return joined(schema)
    return _named([(repr(candidate := joined(schema, hidden=hidden)), candidate) for hidden in WIDTHS])


def _named(models: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Models by name; equal ones get a number."""
    named = dict[str, Any]()
    for name, model in models:
        named[name if name not in named else f"{name} ({len(named)})"] = model
    return named
