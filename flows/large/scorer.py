"""Fitted models as functions that engines send to their workers: `Scorer` adds columns to frames, `Drawer` draws parts.

They pickle as the bytes of the model's file, which a worker loads once.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from flows.core import FlowsError, Memo, as_key
from flows.large.reading import Reading, TableReading, dtype_of_quantiles, selected
from flows.persistence.pickles import packed, unpacked
from flows.persistence.programs import DIRECTORY, folder_in_use, keep_programs, setting
from flows.results.files import load
from flows.results.frames import errors_of, header_of, library_of, listed, module_of
from flows.results.pieces import by_pieces, few_programs
from flows.results.result import FitResult
from flows.tables.files import load as load_table
from flows.tables.result import TableResult
from flows.training.options import one_of

SCORES = "log_prob", "p_value"
CONTEXTS = 2_064, 256  # whose quantiles are computed together: two programs

_readings = Memo(size=8)


class Sent:
    """A fitted model that travels as the bytes of its file, and is loaded when it is first used, once in a worker.

    Programs are kept where the sender keeps them, so that one worker of a machine compiles for all.
    """

    def __init__(self, fitted: Any):
        if not isinstance(fitted, FitResult | TableResult):
            expected = "a TableResult, or a FitResult that was fitted to a frame"
            raise TypeError(f"fitted is a {type(fitted).__name__}; expected {expected}")
        self.table = isinstance(fitted, TableResult)
        reading = self._read(fitted)
        self.packed, self.version, self.programs = packed(fitted, reading.result.init_fun), _version(), folder_in_use()
        _readings.keep((self.table, self.packed), reading)

    def _read(self, fitted: Any) -> Reading:
        return TableReading(fitted) if self.table else Reading(fitted)

    @property
    def reading(self) -> Reading:
        """The model, as a reader of frames."""
        return _readings((self.table, self.packed), self._loaded)

    def _loaded(self) -> Reading:
        if self.version != _version():
            raise FlowsError(
                f"the model comes from flows {self.version}, and this worker has flows {_version()}; install the same version "
                "where the rows are"
            )
        if self.programs is not None and not setting(DIRECTORY):
            keep_programs(self.programs or None)
        return self._read(unpacked(self.packed, load_table if self.table else load))

    def __dask_tokenize__(self) -> Any:
        return type(self).__name__, tuple(vars(self).values())


class Scorer(Sent):
    """A function that adds columns to frames: log p, p-values or quantiles of each row, by a fitted model.

    `score` sends it to the workers of an engine; any other engine that maps a function over frames can have it, such as Modin,
    Daft or joblib. It pickles as the model's file, without a row of the data (only a `KernelDensity` is made of rows), and a
    worker compiles at most two programs for frames of any lengths.

    Args:
        fitted: a `TableResult`, or a `FitResult` that was fitted to a frame.
        add: what each row gets: "log_prob", in nats; "p_value", as of `result.p_value`; and numbers between 0 and 1, for
            quantiles of the one column that is modelled, given its condition, as columns "q0.05".
        errors: "coerce" for -inf where a category is unknown or a value out of bounds, and NaN where there is a gap; "raise"
            for an error that names the row.
        prefix: in front of the names of the new columns.

    Attributes:
        columns: names of the columns that a frame needs; others may be there, in any order.
        added: dtypes of the new columns, by name, as pandas writes them.

    Errors:
        FlowsError: a model that cannot be saved, has no names of columns, no scores of rows held out (for "p_value"), or
            several columns (for quantiles). A call: a frame that lacks a column, or has one of the new ones. TypeError: text
            among numbers.

    Example:
        >>> import flows, numpy as np, pandas as pd
        >>> frame = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)), columns=["x", "y"])
        >>> result = flows.fit(0, flows.Normal(trainable=True), frame, max_epochs=1, folds=1, verbose=0)
        >>> flows.large.Scorer(result, add=["log_prob", "p_value"])(frame.assign(name="a")).columns.tolist()
        ['x', 'y', 'name', 'log_prob', 'p_value']
    """

    def __init__(self, fitted: Any, *, add: Sequence[Any] = ("log_prob",), errors: str = "coerce", prefix: str = ""):
        super().__init__(fitted)
        if not isinstance(prefix, str):
            raise TypeError(f"prefix is {prefix!r:.60}; expected text")
        self.errors, self.prefix = one_of("raise", "coerce")(errors, "errors"), prefix
        self.add, reading = _checked(add), self.reading
        self.shares = tuple(share for share in self.add if share not in SCORES)
        if "p_value" in self.add:
            _ = reading.result.scores
        dtype = dtype_of_quantiles(reading) if self.shares else ""
        scored = (*reading.modelled, *reading.others) if self.scores else ()
        self.columns = tuple(dict.fromkeys((*scored, *reading.condition)))
        self.added = {self._called(name): "float64" if name in SCORES else dtype for name in self.add}

    @property
    def scores(self) -> bool:
        """Return whether rows are scored, and not only their condition is read."""
        return len(self.shares) < len(self.add)

    def _called(self, name: Any) -> str:
        return f"{self.prefix}{name if name in SCORES else f'q{name!r}'}"

    def __call__(self, frame: Any) -> Any:
        """Return a frame of pandas or polars, or an Arrow table, with the new columns."""
        return self.appended(frame, frame)

    def appended(self, frame: Any, read: Any, part: str = "Scorer") -> Any:
        """Return a frame with the new columns, which come from the same rows of another frame; errors begin with the part."""
        header = header_of(frame)
        if header is None or library_of(frame) not in ("pandas", "polars", "pyarrow"):
            raise TypeError(f"a {type(frame).__name__} was given; expected a frame of pandas or polars, or an Arrow table")
        self.check(header.names)
        with errors_of(part):
            return with_columns(frame, self._values(selected(read, self.columns)), self.added)

    def check(self, names: Sequence[str], row: Any = None) -> None:
        """Refuse a table by the names of its columns, and by one row of their types, before anything is computed."""
        if missing := [name for name in self.columns if name not in names]:
            raise FlowsError(f"the table lacks {listed(missing)}; expected the columns {listed(self.columns)}, among others")
        if taken := [name for name in self.added if name in names]:
            raise FlowsError(f"the table has a column {taken[0]!r} already; give prefix=, such as prefix='new_'")
        if twice := [name for name in self.columns if list(names).count(name) > 1]:
            raise FlowsError(f"the table has {twice[0]!r} twice; rename one of them")
        if row is not None:
            with errors_of("a row made up of the types of the table"):
                (self.reading.rows if self.scores else self.reading.contexts)(selected(row, self.columns), "coerce")

    def _values(self, frame: Any) -> dict[str, np.ndarray]:
        """The values of the new columns, by name, each (rows,)."""
        if not len(frame):
            return {name: np.zeros(0, object) for name in self.added}
        columns = dict[Any, np.ndarray]()
        with few_programs(), np.errstate(over="ignore"):  # numbers beyond float32 are far from all rows, and scored as such
            if self.scores:
                scores = self.reading.scores(frame, self.errors, "p_value" in self.add)
                columns |= {name: np.asarray(x, float) for name, x in zip(SCORES, scores, strict=False)}
            if self.shares:
                columns |= zip(self.shares, self._quantiles(frame), strict=True)
        return {self._called(name): columns[name] for name in self.add}

    def _quantiles(self, frame: Any) -> list[np.ndarray]:
        contexts, known = self.reading.contexts(frame, self.errors)

        def quantiles(contexts: np.ndarray) -> np.ndarray:
            return np.asarray(self.reading.answers.quantile(np.asarray(self.shares), context=contexts), float).T

        places = np.maximum(np.cumsum(known) - 1, 0)  # of rows among the rows that are known
        values = by_pieces(quantiles, contexts[known], sizes=CONTEXTS) if known.any() else np.zeros((len(self.shares), 1))
        units = [self.reading.in_units(one)[places] for one in values]
        gaps = [np.array("NaT" if x.dtype.kind in "mM" else None, x.dtype if x.dtype.kind in "mMf" else object) for x in units]
        return [np.where(known, x, gap) for x, gap in zip(units, gaps, strict=True)]


class Drawer(Sent):
    """A function that draws part i of a sample, by the key that `rng` and i give.

    Args:
        fitted: as in `Scorer`, without a condition.
        rng: a key.
        n, rows: the number of rows, and of rows of a part.
    """

    def __init__(self, fitted: Any, rng: Any, n: int, rows: int):
        super().__init__(fitted)
        if condition := self.reading.condition:
            raise FlowsError(
                f"sample: the model has the condition {listed(condition)}; expected one without. Draw where the rows of the "
                "condition are: a function of a frame that returns result.draw(rng, 1, given=frame)"
            )
        self.key, self.n, self.rows, self.parts = tuple(jax.random.key_data(rng).tolist()), n, rows, -(-n // rows)

    def __call__(self, part: int) -> Any:
        """Return the draws of a part, a frame as the model was fitted to."""
        key = jax.random.fold_in(as_key(np.array(self.key, np.uint32)), part)
        return self._drawn(key, min(self.rows, self.n - part * self.rows))

    def example(self) -> Any:
        """Return one draw, for its columns and dtypes."""
        return self._drawn(0, 1)

    def _drawn(self, rng: Any, n: int) -> Any:
        reading = self.reading
        return (reading.table if isinstance(reading, TableReading) else reading.result).draw(rng, n)


def _version() -> str:
    return str(sys.modules["flows"].__version__)


def _checked(add: Any) -> tuple[Any, ...]:
    if isinstance(add, str | float | int) or not isinstance(add, Iterable):
        raise TypeError(f"add is {add!r:.60}; expected a list, such as ['log_prob', 'p_value']")
    names = tuple(name if isinstance(name, str) or not isinstance(name, float | int) else float(name) for name in add)
    if unknown := [name for name in names if name not in SCORES and not (isinstance(name, float) and 0 < name < 1)]:
        raise FlowsError(f"add has {unknown[0]!r:.60}; expected 'log_prob', 'p_value', or shares such as 0.05, for quantiles")
    if not names or len(set(names)) < len(names):
        raise FlowsError(f"add is {add!r:.60}; expected one name or share, or several that differ")
    return names


def with_columns(frame: Any, values: dict[str, np.ndarray], dtypes: dict[str, str]) -> Any:
    """Return a frame, or an Arrow table, with more columns of these dtypes."""
    library = library_of(frame)
    if library == "pandas":
        series = module_of("pandas").Series
        return frame.assign(**{name: series(x, frame.index, dtypes[name]) for name, x in values.items()})
    for name, x in values.items():
        x = np.asarray(x, "float64" if dtypes[name] == "float64" else None)
        column = module_of("pyarrow").array(x.tolist() if x.dtype == object else x, arrow_type(dtypes[name]))
        if library == "pyarrow":
            frame = frame.append_column(name, column)
        else:
            frame = frame.with_columns(module_of("polars").from_arrow(column).alias(name))
    return frame


def row_of(names: Sequence[str], types: Sequence[Any]) -> Any:
    """Return an Arrow table of one row of these types, which a model of other types cannot read: 0, "x" in text, or a gap."""
    pa = module_of("pyarrow")
    asks = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_temporal
    texts = {kind: "x" for kind in (pa.string(), pa.large_string(), pa.string_view())}
    cells = [0 if any(ask(kind) for ask in asks) else texts.get(kind) for kind in types]
    return pa.table([pa.array([cell], kind) for cell, kind in zip(cells, types, strict=True)], names=list(names))


def arrow_type(dtype: str) -> Any:
    """Return the Arrow type of a dtype as pandas writes it."""
    pa, name = module_of("pyarrow"), dtype.partition("[")[0]
    zone = dtype.partition(", ")[2].removesuffix("]") or None
    return {"float64": pa.float64(), "str": pa.string(), "timedelta64": pa.duration("us")}.get(name) or pa.timestamp("us", zone)
