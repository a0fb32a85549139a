"""The result of a fit to a table, which can be saved: scores and draws of frames, in the units of the data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from scipy.special import logsumexp

from flows.checks.model import Axis, Model, result_model
from flows.core import FlowsError, as_key, declares, positive_int, warn_user
from flows.diagnostics.rows import RowReport
from flows.results.columns import columns_of
from flows.results.frames import errors_of, looked_at
from flows.results.result import FitResult, Hints, number_of_draws
from flows.tables.contributions import contributions, p_values
from flows.tables.fields import Rows, names_of
from flows.tables.gaps import conditional, drawn, has_roles, imputed, without_gaps
from flows.tables.one_column import Answers
from flows.tables.pictures import picture
from flows.tables.ranks import scores_and_p_values
from flows.tables.schema import Schema
from flows.training.options import one_of
from flows.training.select import Selection

TABLE = "table"  # the key of the metadata that holds the schema
MOST_DRAWS = 10_000  # points of a cell
ATTEMPTS = 10  # to draw again what is beyond float32
PIECE = 65_536  # rows whose condition is encoded together, as its codes are one-hot


@dataclass(frozen=True, eq=False)
class TableResult(Hints, Answers):
    """A fitted table: a density of its rows, and draws of such rows.

    Attributes:
        schema: what the columns hold, a `Schema`.
        result: the `FitResult` of the rows as the schema encodes them.
        selection: the `Selection` that the model came from, where there were several to choose from; files do not have it.
    """

    schema: Schema
    result: FitResult
    selection: Selection | None = None

    @property
    def likelihood(self) -> str:
        """'exact', 'unbiased' or 'lower bound': what the model's log-density is."""
        return getattr(self.result.init_fun, "likelihood", "exact")

    @property
    def metadata(self) -> dict[str, Any]:
        """Your dict of metadata, from a file or for one."""
        return {key: value for key, value in self.result.metadata.items() if key != TABLE}

    def log_prob(self, frame: Any, *, draws: int | None = None, errors: str = "raise") -> np.ndarray:
        """log p of each row, (rows,), in nats: the density of the numbers, angles and dates, in the units of the frame (of
        dates a second), times the mass of the codes; given the condition, if there is one.

        Args:
            frame: rows with the columns of the schema, in any order.
            draws: None for the density at the values as they are recorded. k for the log of the mean of the density over k
                points of the cell that was rounded to each value, the same points for all rows: an estimate of the cell's mass
                over its width, by which two models of rounded values are compared; at most 10,000. A `flows.AnySubset` has the
                exact masses in any case.
            errors: "raise" to refuse a row that has no density, "coerce" for -inf where a category is unknown or a value out of
                bounds, NaN where there is a gap, and a warning that counts them. A `flows.AnySubset` scores what is there.

        Errors:
            FlowsError, TypeError: a frame that does not fit the schema; the row, the column, the value, and what to do.
        """
        moves = np.zeros((1, 1)) if self.any_given_any else self._points_of_cells(draws)  # its masses are exact

        def score(x: np.ndarray, context: Any) -> np.ndarray:
            log_p = [np.asarray(self.result.log_prob(x + move, context=context), float) for move in moves]
            return logsumexp(log_p, axis=0) - np.log(len(moves))

        return self._scored(score, frame, errors, -np.inf)

    def draw(self, rng: Any, n: int | None = None, given: Any = None) -> Any:
        """Draw rows: a frame with the library, columns, order and dtypes of the fitted one; no ignored columns.

        Values lie on their steps, within their bounds and among the known categories. A row with a value beyond the largest of
        float32, such as the exponential of a long tail, is drawn again.

        Args:
            rng: key or seed.
            n: the number of draws, which has to be given; where `given` is a frame, for each of its rows.
            given: the condition: a dict of values, for all draws, or a frame; of a `flows.AnySubset` values of any columns,
                with gaps.

        Errors:
            FlowsError: a condition that is missing, or that the model does not have.
        """
        key, n = as_key(rng), number_of_draws(rng, n)
        if self.any_given_any:
            return drawn(self._finite, self.schema, key, n, given)
        condition, roles = self.condition_of(given), has_roles(self.result)
        if condition is None:
            return self.schema.decode(self._finite(key, n))
        contexts = self.schema.context(condition, roles)
        return self.schema.decode(self._finite(key, n, contexts), given=self.schema.given(condition, n, roles))

    def impute(self, frame: Any, rng: Any = None) -> Any:
        """Fill the gaps of a frame, by a `flows.AnySubset`: it comes back as it is, with its index, order, ignored columns, and
        dtypes where they hold the values.

        Args:
            frame: rows with the columns of the schema, in any order.
            rng: key or seed, of one joint draw of the gaps of each row. None for the mean of each number, by 64 quantiles, the
                likeliest code, and the mean direction of an angle, each given the values of the row that are there.

        Errors:
            FlowsError: another model; as in `log_prob`.

        Example:
            >>> import flows, numpy, pandas
            >>> from flows import tables
            >>> frame = pandas.DataFrame({"size": numpy.random.default_rng(0).normal(size=200), "town": ["Bonn", None] * 100})
            >>> result = tables.fit(0, frame, model=flows.AnySubset(hidden=(8,)), max_epochs=1, folds=1, verbose=0)
            >>> bool(result.impute(frame).isna().any(axis=None)), bool(result.impute(frame)["size"].equals(frame["size"]))
            (False, True)
        """
        self._check_any("impute")
        return imputed(self._finite, self.result, self.schema, frame, rng)

    def conditional(self, asked: Any, given: Any = ()) -> "TableResult":
        """Return the table of some columns given others, of a `flows.AnySubset`, with the same params: its condition is
        `given`, whose values may be gaps, and of one number or `Ordinal` it has `cdf`, `quantile` and `interval`.

        Args:
            asked, given: names of columns; one of them may stand for itself.

        Errors:
            FlowsError: another model; a column that is not modelled, or is there twice.
        """
        self._check_any("conditional")
        columns = {"conditional: asked": asked, "conditional: given": given}
        names = [names_of([some] if isinstance(some, str) else some, what) for what, some in columns.items()]
        return TableResult(*conditional(self.result, self.schema, *names))

    @property
    def any_given_any(self) -> bool:
        """Return whether the model is of any columns given any others, `flows.AnySubset`, which takes gaps."""
        return declares(self.result.init_fun, "roles")

    def p_value(self, frame: Any, *, by: str = "density", errors: str = "raise", verbose: int = 1) -> np.ndarray:
        """Return the p-value of each row, (rows,), as `FitResult.p_value`: a share a of rows like the training rows has at most
        the value a, whatever the model. With errors="coerce" a row without a density has the least value, and a row with a gap
        NaN. A `flows.AnySubset` ranks log p less what is usual for the columns that a row has, a sum over these; the share is a
        of rows that have gaps as often, and in the same columns, as the training rows.

        Args:
            frame, errors, verbose: as in `log_prob` and in `contributions`, whose cost "columns" has.
            by: "density" to rank log p(x), "columns" to rank min_j (log p(x_j | others) - u_j), which finds one wrong value
                among right ones; u_j is the median of `contributions` over 256 draws (Bates et al. 2023, arXiv:2104.08279,
                allow any score). The first call scores the rows held out, too, and `save` writes these scores.
        """
        if one_of("density", "columns")(by, "p_value: by") == "columns":
            return p_values(self.result, self.schema, frame, errors, verbose)
        return self.log_prob_and_p_value(frame, errors=errors)[1]

    def log_prob_and_p_value(self, frame: Any, *, errors: str = "raise") -> tuple[np.ndarray, np.ndarray]:
        """`log_prob` and `p_value` of rows, both (rows,), for the cost of one of them.

        Args:
            frame, errors: as in `log_prob`.
        """

        def both(x: np.ndarray, context: Any) -> np.ndarray:
            if self.any_given_any:
                return scores_and_p_values(self.result, x, context)
            return np.stack(self.result.log_prob_and_p_value(x, context=context))

        log_p, usual = self._scored(both, frame, errors, np.array([[-np.inf], [self._least()]]))
        return log_p, usual

    def contributions(self, frame: Any, *, errors: str = "raise", verbose: int = 1) -> Any:
        """Tell which column makes a row odd: log p(x_j | all other columns), a frame with the columns that are modelled.

        log p(x_j | others) = log p(x) - log Z_j, in nats, where Z_j is the sum over the codes, or the integral over the numbers
        or angles, of p with x_j moved, given the condition if there is one. Of a category it is a log mass; of a number, an
        angle or a date a log density in the units of the frame, also where values lie on steps. So a column is not compared
        with other columns but with its usual value, such as its median over other rows.

        Args:
            frame: rows with the columns of the schema, in any order.
            errors: "raise" to refuse a row that has no density, "coerce" for -inf at a category that is unknown and a value out
                of bounds, NaN in the rest of such a row and in rows with a gap, and a warning that counts them.
            verbose: 1 for a bar that shows about how long it will take, 0 for none.

        Returns:
            A frame with the library, the names and the order of the input frame; in pandas also with its index.

        Cost:
            One density for each class of a category, and 100 to 200 for each number and angle of a row, by Simpson's rule on
            panels that begin at quantiles of draws, at the value of the row, and at values of draws like the row in the other
            columns. Panels are halved until two levels agree to 1e-3, or to two roundings of log p where that is more. NaN, and
            a warning, where an integral needs more than 4,096 points. One of several modes may be missed, if it is far from the
            value of the row and far narrower than the panels, eight of which lie between quantiles of draws.

        Errors:
            FlowsError, TypeError: as in `log_prob`; verbose that is neither 0 nor 1.
        """
        return contributions(self.result, self.schema, frame, errors, verbose)

    def plot(self, rows: Any = None, columns: Any = None, n: int = 2_000, *, given: Any = None, rng: Any = 0) -> Any:
        """Plot draws next to rows, as `FitResult.plot`, in the units of the frame, with columns in its order. Categories are
        bars of shares, beyond 24 the 11 commonest and the others together; dates have an axis of dates. Needs matplotlib.

        Args:
            rows: a frame; by default the rows held out, which a result has until it is saved.
            columns: names, or places among the modelled columns; by default all, of more than 6 the first 6.
            n: the number of draws; without `given`, at the conditions of the rows.
            given: the condition, without rows: a dict of values, for all draws, or a frame.
            rng: key or seed, for the draws and the choice of rows.

        Returns:
            A matplotlib Figure. For one number given one column, the median and the central 90% against that column.

        Errors:
            FlowsError: an unknown column; a missing condition; both rows and a condition; rows that `log_prob` refuses.
            ImportError: matplotlib is not installed.

        Example:
            >>> import flows, numpy, pandas
            >>> from flows import tables
            >>> heights = numpy.random.default_rng(0).normal(1.7, 0.1, 200)
            >>> frame = pandas.DataFrame({"height": heights, "town": ["Bonn", "Oslo"] * 100})
            >>> normal = flows.Normal(conditioner=flows.MLP(4))
            >>> result = tables.fit(0, frame, model=normal, folds=1, max_epochs=1, verbose=0)
            >>> figure = result.plot(n=100)
            >>> [label.get_text() for label in figure.axes[-1].get_xticklabels()]
            ['Bonn', 'Oslo']
            >>> figure.clear()
        """
        if self.any_given_any and given is not None:
            names = list(map(str, given)) if isinstance(given, Mapping) else list(looked_at(given, "plot: given").places)
            asked = self.conditional([name for name in self.schema.columns if name not in names], names)
            return asked.plot(rows, columns, n, given=given, rng=rng)
        if self.any_given_any:
            rows = None if rows is None else without_gaps(self.schema, rows, "plot")[0].native
            return self.conditional(self.schema.columns).plot(rows, columns, n, rng=rng)
        return picture(self, rows, columns, n, given, rng)

    def verify(self, frame: Any) -> RowReport:
        """Tell on which rows the model is not to be trusted, as `FitResult.verify`."""
        rows = self.rows(frame)
        return self.result.verify(rows.x, context=rows.context)

    def save(self, path: Any, metadata: dict | None = None) -> None:
        """Write model, scores and schema to one file, for `tables.load`, or for `flows.load`, which returns the `FitResult`.
        The file has categories, bounds and offsets in it, and no row.

        Args:
            path: a file name, or a binary file that is open.
            metadata: your dict of values that JSON has; by default the metadata of the result.

        Errors:
            FlowsError: metadata with the key "table", under which the schema is saved.
        """
        metadata = self.metadata if metadata is None else metadata
        if not isinstance(metadata, dict):
            raise TypeError(f"save: metadata is a {type(metadata).__name__}; expected a dict of values that JSON has")
        if TABLE in metadata:
            raise FlowsError(f"save: metadata has the key {TABLE!r}, under which the schema is kept; give it another name")
        self.result.save(path, {**metadata, TABLE: self.schema.to_json()})

    def __repr__(self) -> str:
        return f"{self.result!r}\n{self.schema!r}"

    def __flows_check__(self) -> Model:
        """Return the model that `flows.check` asks: it reads frames, and draws lie on their steps and within their bounds."""
        if self.any_given_any:
            return self.conditional(self.schema.columns).__flows_check__()
        schema, model, gappy = self.schema, result_model(self.result), declares(self.result.init_fun, "prepares")

        def read(frame: Any, context: Any, name: str) -> tuple[np.ndarray, np.ndarray | None]:
            if context is not None:
                raise FlowsError(
                    "check: context is given, and a table has its condition among its columns; leave context out"
                    if schema.condition
                    else "check: context is given, and the table was fitted without a condition; leave it out"
                )
            with errors_of(f"check: {name}"):
                rows = self.rows(without_gaps(schema, frame, f"check: {name}")[0] if gappy else frame)
            return rows.x, rows.context

        def draw(key: Any, n: int, contexts: np.ndarray | None) -> np.ndarray:
            batched = contexts is not None and contexts.ndim > len(model.context_shape or ())
            count = n // len(contexts) if contexts is not None and batched else n
            drawn = self._finite(key, count, contexts if batched or contexts is None else contexts[None])
            finite = np.isfinite(drawn).all(1)
            drawn[finite] = schema.encode(schema.decode(drawn[finite])) if finite.any() else drawn[finite]
            return drawn

        kinds: dict[str, Any] = {name: schema.complete(name).kind for name in schema.codes}
        called = {name: kind.called for name, kind in kinds.items()}
        columns, fields = columns_of(schema.columns, model.region, None, called), map(schema.complete, schema.columns)
        axes = (Axis(field.kind.axis(field, str(field.label)), partial(field.kind.in_units, field)) for field in fields)
        about = None if model.about is None else model.about._replace(lines=repr(self), metadata=self.metadata or {})
        return replace(model, columns=columns, read=read, draw=draw, axes=tuple(axes), about=about)

    def rows(self, frame: Any, errors: str = "raise") -> Rows:
        # A frame as the model takes it.
        return self.schema.rows(frame, errors=errors, roles=has_roles(self.result))

    def _check_any(self, what: str) -> None:
        if not self.any_given_any:
            raise FlowsError(
                f"{what}: the model, {self.result.init_fun!r:.60}, is not of any columns given any others; fit one by "
                "tables.fit(0, frame, model=flows.AnySubset())"
            )

    def _finite(self, key: Any, n: int, contexts: np.ndarray | None = None) -> np.ndarray:
        """Draws as the schema encodes them: n, or n for each of these contexts, one after the other."""

        def draw(key: Any, n: int, contexts: np.ndarray | None) -> np.ndarray:
            drawn = np.asarray(self.result.draw(key, n, context=contexts), np.float64)
            return drawn.reshape(-1, len(self.schema.columns))

        drawn = draw(key, n, contexts)
        for attempt in range(ATTEMPTS):
            beyond = np.flatnonzero(~np.isfinite(drawn).all(1))
            if not len(beyond):
                break
            again = jax.random.fold_in(key, attempt)
            drawn[beyond] = draw(again, len(beyond), None) if contexts is None else draw(again, 1, contexts[beyond // n])
        return drawn

    def _least(self) -> float:
        """The least value that `p_value` has."""
        return float(self.result.p_values_of(np.full((len(np.atleast_2d(self.result.scores)), 1), -np.inf))[0])

    def _scored(self, function: Callable, frame: Any, errors: str, outside: Any) -> np.ndarray:
        """Values of a function of rows, (rows,) or several of these, with `outside` for rows that have no density, and NaN for
        rows with gaps."""
        values, refused, lacking = list[np.ndarray](), 0, 0
        for part in self.schema.pieces(frame, PIECE, errors=errors, roles=has_roles(self.result)):
            scores = np.asarray(function(part.x, context=part.context), float)
            gaps = part.gaps.any(1) & ~part.outside
            values.append(np.where(part.outside, outside, np.where(gaps, np.nan, scores)))
            refused, lacking = refused + int(part.outside.sum()), lacking + int(gaps.sum())
        if refused or lacking:
            warn_user(
                f"{refused} of {sum(part.shape[-1] for part in values)} rows have an unknown category or a value out of "
                f"bounds, and no density; {lacking} have a gap, and NaN"
            )
        return np.concatenate(values, -1)

    def _points_of_cells(self, draws: int | None) -> np.ndarray:
        """The moves from a row to each of `draws` points of the cell that was rounded to it."""
        steps = steps_of(self.schema)
        count = 1 if draws is None else positive_int(draws, "log_prob: draws", most=MOST_DRAWS)
        if draws is None or not steps.any():
            return np.zeros((1, len(steps)))
        from scipy.stats import qmc  # which takes a quarter of a second

        moves = np.zeros((count, len(steps)))
        moves[:, steps > 0] = (qmc.Halton(int((steps > 0).sum()), seed=0).random(count) - 0.5) * steps[steps > 0]
        return moves

    def condition_of(self, condition: Any) -> Any:
        # As a frame; None without one.
        names = self.schema.condition
        if not names:
            if condition is not None:
                raise FlowsError(
                    "given is there, and the table was fitted without a condition; leave it out, or name the columns on which "
                    "the others are to depend in tables.fit(condition=)"
                )
            return None
        if condition is None:
            raise FlowsError(f"given is missing; expected values of {', '.join(map(repr, names))}: a dict, or a frame")
        return self.schema.given(condition, roles=has_roles(self.result))

    def context_of(self, condition: Any) -> np.ndarray | None:
        # What a model sees of a condition: of a dict one context, of a frame one for each row; None without one.
        frame = self.condition_of(condition)
        contexts = None if frame is None else self.schema.context(frame, has_roles(self.result))
        return contexts[0] if contexts is not None and isinstance(condition, Mapping) else contexts


def steps_of(schema: Schema) -> np.ndarray:
    """The steps of all columns as they are encoded; 0 of codes and of what is continuous."""
    return np.array([*[0.0] * len(schema.codes), *schema.angle_steps, *schema.steps])
