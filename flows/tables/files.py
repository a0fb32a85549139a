"""`tables.load`: the fitted table of a file."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from flows.core import FlowsError, as_context, as_event
from flows.distributions.support import support
from flows.results.files import load as load_result
from flows.results.result import FitResult
from flows.tables.gaps import has_roles
from flows.tables.result import TABLE, TableResult
from flows.tables.schema import Schema


def load(path: Any, constructors: Iterable[Callable] = (), *, max_bytes: int | None = None) -> TableResult:
    """The `TableResult` that `TableResult.save` wrote.

    Args:
        path, constructors, max_bytes: as in `flows.load`.

    Errors:
        FlowsError: a file that `flows.load` refuses, that holds no table, or whose schema does not fit its model.
    """
    result = load_result(path, constructors, max_bytes=max_bytes)
    text = result.metadata.get(TABLE) if isinstance(result, FitResult) else None
    if not isinstance(result, FitResult) or not isinstance(text, str):
        raise FlowsError(f"{str(path)!r} holds no table: it was not saved by TableResult.save; read it by flows.load")
    try:
        schema = Schema.from_json(text)
        sizes = len(schema.columns), schema.context_dim
    except FlowsError as error:
        raise FlowsError(f"{str(path)!r} has a schema that cannot be read: {error}") from error
    if has_roles(result):
        sizes = sizes[0], (2, len(schema.condition or schema.columns))  # type: ignore[assignment]
    if as_event(result.input_dim) != (sizes[0],) or as_context(result.context_dim) != as_context(sizes[1]):
        raise FlowsError(
            f"{str(path)!r} has a schema of {sizes[0]} columns and a condition of {sizes[1]} numbers, and a model of "
            f"{result.input_dim} and {result.context_dim}"
        )
    region = support(result.init_fun, result.input_dim, result.context_dim).inputs
    others = [0] * (sizes[0] - len(schema.codes))
    for name, in_schema, in_model in (
        ("categories", [*schema.classes, *others], region.classes),
        ("periods", [*[0] * len(schema.codes), *schema.periods, *[0] * len(schema.numbers)], region.period),
    ):
        if not np.allclose(in_schema, in_model):
            j = int(np.argmin(np.isclose(in_schema, in_model)))
            raise FlowsError(
                f"{str(path)!r} has a schema whose {name} differ from its model: column {schema.columns[j]!r} has "
                f"{in_schema[j]:.6g}, and {in_model[j]:.6g} there"
            )
    return TableResult(schema, result)
