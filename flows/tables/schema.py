"""The schema of a table: what its columns hold, and the way from a frame to numbers and back."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from flows.core import FlowsError, shortened
from flows.distributions.conditional import gaps as gaps_of_rows
from flows.distributions.conditional import given_of
from flows.results.frames import Frame, check_columns, frame_of, listed, looked_at, one_row, shortened_name, taken_rows
from flows.tables.fields import CellError, Field, Rows, context_of, decodable, encoded_rows, from_json, names_of, to_json
from flows.tables.kinds import Ignored, Kind
from flows.tables.kinds.dtypes import Dtype, combined


class Schema:
    """A description of the columns of a table, and the way from a frame to numbers and back.

    A frame becomes an array with the modelled columns in the order codes, angles, numbers. Codes are 0, 1, ..., in the order of
    the values of their `Category`; angles count from `low`, within a period; numbers count from an offset, their low
    bound or else the least value, subtracted in float64; times are seconds since the least one. The map has no log-det:
    a density of the array is a density of the frame. Columns that are a `Constant` or `Ignored` are left out.

    A schema has to be fitted to a frame, from which it learns what kinds leave open, and the library, order and dtypes of the
    columns; `infer_schema` does both. It keeps no rows, only categories, bounds, offsets, the largest dates, and formats.

    Args:
        kinds: the kind of each column by name, such as `{"age": tables.Integer(low=0), "town": tables.Category()}`.
        condition: names of columns on which the density of the others depends; `context` reads them.

    Attributes:
        kinds: by name, in the order of the frame.
        condition: names.
        codes, angles, numbers: names of the modelled columns of each block; `columns` are all of them, in this order.
        classes: the number of values of each code.
        periods: of the angles, in the units of the data.
        supports: (low, high) of each of the numbers, less its offset; infinite where a side is open.
        steps: of the numbers, 0 where they are continuous; `angle_steps` are the steps of the angles.
        context_dim: the count of numbers that a model sees of the condition.
        fitted_to: the library of the frame it was fitted to; None before that.

    Errors:
        FlowsError: a condition that is not a column, or that is `Ignored`. TypeError: a value that is not a kind.

    Example:
        >>> import pandas
        >>> from flows import tables
        >>> frame = pandas.DataFrame({"age": [31, 64, 18], "town": ["Bonn", "Oslo", "Bonn"]})
        >>> schema = tables.Schema({"age": tables.Integer(low=0), "town": tables.Category()}).fitted(frame)
        >>> schema.columns
        ('town', 'age')
        >>> schema.encode(frame).tolist()
        [[0.0, 31.0], [1.0, 64.0], [0.0, 18.0]]
        >>> schema.decode([[1.0, 40.0]])
           age  town
        0   40  Oslo
    """

    def __init__(self, kinds: Mapping[Any, Kind], condition: Sequence[Any] = ()):
        if not isinstance(kinds, Mapping):
            raise TypeError(f"Schema: kinds is a {type(kinds).__name__}; expected a dict of kinds by the names of columns")
        fields = {str(name): Field(_kind(str(name), kind), label=name) for name, kind in kinds.items()}
        if len(fields) < len(kinds):
            raise FlowsError(f"Schema: kinds are of {listed(list(kinds))}; expected names that are not alike as text")
        self._set(fields, names_of(condition), None)

    def _set(self, fields: dict[str, Field], condition: tuple[str, ...], library: str | None) -> None:
        if not fields:
            raise FlowsError("Schema: there are no columns; expected one or more")
        for name in condition:
            if name not in fields:
                raise FlowsError(f"Schema: the condition {name!r} is not a column; expected some of {listed(list(fields))}")
            if not fields[name].kind.is_read:
                raise FlowsError(f"Schema: the condition {name!r} is Ignored(); expected a kind that is read")
        if len(set(condition)) < len(condition):
            raise FlowsError(f"Schema: condition is {condition!r}; expected each name once")
        self._fields, self.condition, self.fitted_to = fields, condition, library
        # The condition is in the order of the user; modelled columns are by block, each in the order of the frame.
        self.codes, self.angles, self.numbers = map(self._in, ("codes", "angles", "numbers"))

    def _in(self, block: str) -> tuple[str, ...]:
        read = [(name, kind) for name, kind in self.kinds.items() if kind.is_read and name not in self.condition]
        return tuple(name for name, kind in read if kind.block == block)

    @classmethod
    def made(cls, fields: dict[str, Field], condition: tuple[str, ...], library: str | None) -> "Schema":
        schema = cls.__new__(cls)
        cls._set(schema, fields, condition, library)
        return schema

    @property
    def kinds(self) -> Mapping[str, Kind]:
        return MappingProxyType({name: field.kind for name, field in self._fields.items()})

    @property
    def columns(self) -> tuple[str, ...]:
        return self.codes + self.angles + self.numbers

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the columns of one value."""
        return self._in("")

    @property
    def offsets(self) -> dict[str, float]:
        """The value of each number that is encoded as 0."""
        return {name: float(self.complete(name).offset) for name in self.numbers if self[name].sort == "numbers"}

    @property
    def classes(self) -> tuple[int, ...]:
        return tuple(len(self.complete(name).kind.known) for name in self.codes)  # type: ignore[attr-defined]

    @property
    def periods(self) -> tuple[float, ...]:
        return tuple(float(self._fields[name].kind.period) for name in self.angles)  # type: ignore[attr-defined]

    @property
    def supports(self) -> tuple[tuple[float, float], ...]:
        return tuple(self.complete(name).ends for name in self.numbers)

    @property
    def steps(self) -> tuple[float, ...]:
        return tuple(self.complete(name).step for name in self.numbers)

    @property
    def angle_steps(self) -> tuple[float, ...]:
        return tuple(self._fields[name].step for name in self.angles)

    @property
    def context_dim(self) -> int:
        return sum(self[name].width(self.complete(name)) for name in self.condition)

    def __getitem__(self, name: Any) -> Kind:
        if str(name) not in self._fields:
            raise FlowsError(f"{name!r} is not a column of the schema; its columns are {listed(list(self._fields))}")
        return self._fields[str(name)].kind

    def __contains__(self, name: Any) -> bool:
        return str(name) in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self._key == other._key

    def __hash__(self) -> int:
        return hash((tuple(self._fields), self.condition))

    @property
    def _key(self) -> tuple:
        """Return all that makes schemas unequal; the reasons for kinds do not."""
        fields = [(name, dataclasses.replace(field, why="")) for name, field in self._fields.items()]
        return fields, self.condition, self.fitted_to

    def __repr__(self) -> str:
        """A table: column, kind, why."""
        rows = [("column", "kind", "why")]
        for name, field in self._fields.items():
            why = "; ".join(filter(None, ("condition" if name in self.condition else "", field.why)))
            rows.append((shortened_name(name), shortened(field.kind, 60), why))
        widths = [max(len(row[j]) for row in rows) for j in range(2)]
        return "\n".join(f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {why}".rstrip() for name, kind, why in rows)

    def replace(self, kinds: Mapping[Any, Kind]) -> "Schema":
        """Return the schema with other kinds for some columns. `fitted` has to learn what these leave open.

        Args:
            kinds: the new kinds, by names of columns.

        Errors:
            FlowsError: a name that is not a column. TypeError: a value that is not a kind.
        """
        if not isinstance(kinds, Mapping):
            raise TypeError(f"replace: kinds is a {type(kinds).__name__}; expected a dict of kinds by the names of columns")
        fields = dict(self._fields)
        for name, kind in zip(map(str, kinds), kinds.values(), strict=True):
            if name not in fields:
                raise FlowsError(f"replace: {name!r} is not a column; expected some of {listed(list(fields))}")
            old = fields[name]
            fields[name] = Field(_kind(name, kind), old.label, old.dtype, why="given").replacing(old)
        return self.made(fields, self.condition, self.fitted_to)

    def ignoring(self, name: str, why: str = "") -> "Schema":
        """Return the schema with a column that is not read, whatever it was."""
        return self.made({**self._fields, name: Field(Ignored(), label=name, why=why)}, self.condition, self.fitted_to)

    def fitted(self, frame: Any) -> "Schema":
        """Return the schema with what kinds leave open, learnt from a frame: values, least values, steps of dates, digits,
        dtypes, library and order. Known facts stay. Gaps are allowed here.

        Args:
            frame: with the columns of the schema, in any order.

        Errors:
            FlowsError, TypeError: as in `encode`, but not for gaps.
        """
        what = "fitted"
        table = self._looked_at(frame, what, self._fields)
        order = list(self._fields)
        if self.fitted_to is None:  # ignored columns may be missing
            order = [*table.places, *(name for name in order if name not in table.places)]
        library, fields = table.header.library, dict(self._fields)
        for name in order:
            field = fields.pop(name)
            fields[name] = field.learnt(name, table, library != self.fitted_to, what) if field.kind.is_read else field
        return self.made(fields, self.condition, library)

    def encode(self, frame: Any) -> np.ndarray:
        """The modelled columns of a frame as numbers.

        Args:
            frame: with the columns of the schema, in any order; ignored columns and columns of the condition
                may be missing.

        Returns:
            float64, (rows, d): codes, angles, numbers, as `columns` names them.

        Errors:
            FlowsError: columns that are missing, doubled or unknown; no rows; a value that is unknown, not finite, out of
                bounds or missing, by its row and column. TypeError: not a frame, or text among numbers; times with
                a zone where the schema has none, or the other way round.
        """
        table = self._looked_at(frame, "encode", [*self.columns, *self.constants])
        return encoded_rows(self._fields, self.columns, table, "encode", constants=self.constants).x

    def context(self, frame: Any, roles: bool = False) -> np.ndarray:
        """Return the numbers that a model sees of the condition, column by column.

        Codes become one-hot, angles their cosine and sine. A number with one bound is log(x - low) or -log(high - x), a number
        with two log((x - low) / (high - x)), as in `flows.Unconstrain`; with a step, bounds are half a step further out, where
        its cells end. Other numbers are as they are encoded. Times are a trend, 0 at the least and 1 at the largest of the
        fitted frame, and cosine and sine of the day, the week and the year, by the clock of their zone. A cycle is left
        out if the times went through less than nine tenths of it, or if it has fewer than three steps.

        Args:
            frame: with the columns of the condition; other columns of the schema are not read.
            roles: for `flows.AnySubset`: values, and which are there, (rows, 2, columns).

        Returns:
            float64, (rows, context_dim).

        Errors:
            As in `encode`; FlowsError: the schema has no condition.
        """
        if not self.condition:
            raise FlowsError("context: the schema has no condition; name columns of it: infer_schema(frame, condition=[...])")
        table = self._looked_at(frame, "context", self.condition)
        values = encoded_rows(self._fields, self.condition, table, "context", refuse_gaps=not roles).x
        return given_of(values) if roles else context_of(self._fields, self.condition, table, values, "context")

    def rows(self, frame: Any, *, errors: str = "raise", roles: bool = False) -> Rows:
        """Return a frame as numbers: the modelled columns, and what a model sees of the condition.

        Args:
            frame: with all columns but ignored ones.
            errors: "raise", or "coerce" to mark rows with a gap, or with a value that its column cannot have, instead.
            roles: for `flows.AnySubset`: the context has values and roles, by which gaps are absent.

        Errors:
            As in `encode`.
        """
        return self._rows(self._looked_at(frame, "encode", self._fields), errors, roles)

    def pieces(self, frame: Any, size: int, *, errors: str = "raise", roles: bool = False) -> Iterator[Rows]:
        """Yield rows in pieces of this size, as many rows as numbers may be large.

        Args:
            frame, errors, roles: as in `rows`.
            size: rows of a piece.
        """
        table = self._looked_at(frame, "encode", self._fields)
        for start in range(0, table.rows, size):
            try:
                rows = self._rows(table.sliced(slice(start, start + size)) if size < table.rows else table, errors, roles)
            except CellError:
                self._rows(table, errors, roles)  # whose error counts rows of the whole frame
                raise
            yield rows

    def _rows(self, table: Frame, errors: str, roles: bool) -> Rows:
        asks_all = roles and not self.condition
        rows = encoded_rows(self._fields, self.columns, table, "encode", errors, self.constants, not asks_all)
        if asks_all:
            x, context = gaps_of_rows(np.where(rows.outside[:, None], np.nan, rows.x))
            return Rows(np.where(rows.outside[:, None], rows.x, x), context, rows.outside, np.zeros_like(rows.gaps))
        if not self.condition:
            return rows
        condition = encoded_rows(self._fields, self.condition, table, "encode", errors, (), not roles)
        gaps = np.concatenate([rows.gaps, condition.gaps & (not roles)], 1)
        context = given_of(condition.x) if roles else context_of(self._fields, self.condition, table, condition.x, "encode")
        return Rows(rows.x, context, rows.outside | condition.outside, gaps)

    def gaps(self, frame: Any) -> dict[str, np.ndarray]:
        """Tell which rows have a gap, for each column that has gaps and no value for them."""
        gaps = self.rows(frame, errors="coerce").gaps
        names = *self.columns, *self.constants, *self.condition
        return {name: mask for name, mask in zip(names, gaps.T, strict=True) if mask.any()}

    def decode(self, array: Any, given: Any = None) -> Any:
        """Numbers as a frame of the library, the order and the dtypes that the schema was fitted to.

        Values are rounded to their steps, or to the digits of the fitted frame, in float64; they lie inside their bounds,
        and angles in [low, low + period). Columns of one value are filled in.

        Args:
            array: (rows, d), as `encode` returns them.
            given: a frame with the columns of the condition, a row for each row of the array; None leaves these columns out.

        Errors:
            FlowsError: an array of another shape, or with NaN or a number that is not a code, by its row and column.
        """
        values = decodable(array, self.columns)
        rows, library = len(values), self._library("decode")
        native = {name: self.native(name, values[:, j], library) for j, name in enumerate(self.columns)}
        native |= {name: self.native(name, np.zeros(rows), library) for name in self.constants}
        if given is not None:
            native |= self._decoded_condition(given, rows, library)
        names = [name for name in self._fields if name in native]
        return frame_of(library, [self._fields[name].label for name in names], [native[name] for name in names], rows)

    def given(self, values: Any, n: int = 1, roles: bool = False) -> Any:
        """A frame of the condition, for `context` and `decode`, with n copies of each row.

        Args:
            values: a dict of one value for each column of the condition, or a frame with these columns.
            n: how often each row is repeated, one after the other.
            roles: as in `context`; then values may be gaps.

        Errors:
            As in `context`; FlowsError: a dict that lacks a column, or has another.
        """
        if not self.condition:
            raise FlowsError("given: the schema has no condition; leave given out, or fit with condition=[...]")
        if isinstance(values, Mapping):
            values = one_row(self._library("given"), values)
        table = self._looked_at(values, "given", self.condition)
        encoded_rows(self._fields, self.condition, table, "given", refuse_gaps=not roles)
        return taken_rows(table.native, np.repeat(np.arange(table.rows), n))

    def to_json(self) -> str:
        """Return the schema as text, which people may edit: a list of columns, each with kind, arguments and learnt facts."""
        return to_json(self._fields, self.condition, self.fitted_to)

    @classmethod
    def from_json(cls, text: str) -> "Schema":
        """The schema that a text of `to_json` describes; `fitted` learns what it leaves open.

        Errors:
            FlowsError: text that is not JSON, by line and column, or that has an unknown kind, argument or name.
        """
        return cls.made(*from_json(text))

    def dtype_of(self, name: str) -> Dtype:
        return self._fields[name].dtype or ""

    def _looked_at(self, frame: Any, what: str, expected: Any) -> Frame:
        table = looked_at(frame, what)
        ignored = {name for name, field in self._fields.items() if not field.kind.is_read}
        check_columns(table, [name for name in expected if name not in ignored], self._fields, what)
        return table

    def _library(self, what: str) -> str:
        if self.fitted_to is None:
            raise FlowsError(
                f"{what}: the schema was not fitted to a frame; expected schema.fitted(frame), or infer_schema(frame)"
            )
        return self.fitted_to

    def complete(self, name: str) -> Field:
        return self._fields[name].known(name)

    def native(self, name: str, values: np.ndarray, library: str | None) -> Any:
        return self[name].decoded(name, self.complete(name), values, library)

    def _decoded_condition(self, condition: Any, rows: int, library: str) -> dict[str, Any]:
        if not self.condition:
            raise FlowsError("decode: given is a frame, but the schema has no condition; leave it out")
        table = self._looked_at(condition, "decode: given", self.condition)
        if table.rows != rows:
            raise FlowsError(f"decode: given has {table.rows} rows and the array {rows}; expected the same number")
        columns = dict[str, Any]()
        for name in self.condition:
            values, _, gaps = self._fields[name].checked(name, table, "decode: given", "raise", gaps=False)
            columns[name] = self.native(name, np.where(gaps, 0, values), library)
            columns[name] = combined(columns[name], None, gaps) if gaps.any() else columns[name]
        return columns


def _kind(name: str, kind: Any) -> Kind:
    if not isinstance(kind, Kind):
        call = f"; call it: {kind.__name__}()" if isinstance(kind, type) and issubclass(kind, Kind) else ""
        raise TypeError(f"Schema: the kind of column {name!r} is {kind!r:.60}; expected one such as tables.Real(){call}")
    return kind
