"""`plot`: the usual picture after a fit, as a part of a result. This file asks the model, pictures/ draws."""

from typing import Any

import jax
import numpy as np

from flows.core import COLUMN, FlowsError, Shape, as_array, as_context, as_event, as_key, on_device, positive_int
from flows.results.columns import Column, Inputs
from flows.results.one_column import OneColumn
from flows.results.pictures.axes import places_of, pyplot
from flows.results.pictures.comparison import MOST as MOST_IMAGES
from flows.results.pictures.comparison import SHARES, Compared, band, check_finite, check_images, finite_of, pairs, sheets, some

MOST_DRAWS = 1_000_000


class Plot(OneColumn):
    """The part of a result that draws it."""

    kept: Any
    context_columns: Any

    def plot(self, rows: Any = None, columns: Any = None, n: int = 2_000, *, context: Any = None, rng: Any = 0) -> Any:
        """Plot draws next to rows: the margin of each column, and the points of each pair of columns; needs matplotlib.

        Bins and ends of axes are the same for both; 0.5% of the rows lie beyond each end. Points of rounded columns are spread
        over their cells, as they would hide each other. One column with a context of one number has the median and the central
        90% of the model against the context, next to rows. Other models with a context have a draw for the context of each
        row, images at most 36 of each kind, and a fit to a density its draws, and a histogram of its log importance weights.
        Up to 24 codes have bars, whose heights are shares. Remarks below the picture say what it leaves out.

        Args:
            rows: (m, *event), or a table; the picture has at most n of them, at random. By default the rows held out, which a
                result has until it is saved, as no file has rows; without rows, draws alone.
            columns: names of columns, or places from 0; by default all, or the first 6 of more.
            n: the number of draws.
            context: the context of the rows, as in `log_prob`; without rows (*context,) for all draws or (m, *context).
            rng: key or seed, for the draws and for the choice of rows.

        Returns:
            A matplotlib Figure, with a transparent background: `result.plot().savefig("pairs.png")`.

        Errors:
            FlowsError: an unknown column; rows or contexts of another shape, or with NaN; a context that is missing.
            ImportError: matplotlib is not installed.

        Example:
            >>> import flows, numpy as np
            >>> rows = np.random.default_rng(0).normal(size=(300, 3))
            >>> result = flows.fit(0, flows.Normal(), rows, max_epochs=1, verbose=0)
            >>> figure = result.plot(n=500)
            >>> len(figure.axes)                       # three margins, and three pairs
            6
            >>> figure.clear()
        """
        pyplot()
        event, n = as_event(self.input_dim), positive_int(n, "plot: n", most=MOST_DRAWS)
        if len(event) != 1:
            check_images(event)
            if columns is not None:
                raise FlowsError(f"plot: columns is {columns!r:.60}, and the event is {event}, an image; leave it out")
            return sheets(compared(self, rows, context, min(n, MOST_IMAGES), rng))
        described = Inputs(self).described()
        places, left_out = places_of(columns, [column.name for column in described])
        if event == COLUMN and as_context(self.context_dim) == (1,) and not described[0].bars:
            some_rows = with_rows(self, rows, context, n, rng)
            if np.ndim(some_rows.context) == 2:
                condition = Column("context" if self.context_columns is None else self.context_columns[0])
                return band(condition, described[0], some_rows, lambda at: quantiles_given(self, at[:, None], n, rng))
        both = compared(self, rows, context, n, rng).of(places)
        return pairs([described[j] for j in places], both._replace(notes=[*left_out, *both.notes]), self._weights())

    def _weights(self) -> Any:
        """A function that draws importance weights; None where there are none."""
        return None


def compared(result: Plot, rows: Any, context: Any, n: int, rng: Any) -> Compared:
    """Return draws and the rows to compare them with; arguments as in `plot`."""
    drawn_rows, keywords = with_rows(result, rows, context, n, rng), dict[str, Any]()
    if (contexts := drawn_rows.context) is not None:
        if contexts.ndim > len(as_context(result.context_dim) or ()):  # all contexts equally often, and one draw for each
            contexts = np.resize(contexts, (n, *contexts.shape[1:]))
        keywords["context"] = on_device(contexts)
    key = jax.random.fold_in(as_key(rng), 1)
    draws, notes = finite_of(np.asarray(Inputs(result).drawn(key, n, keywords), np.float64))
    return drawn_rows._replace(draws=draws, draws_label=f"{len(draws):,} draws", notes=[*drawn_rows.notes, *notes])


def with_rows(result: Plot, rows: Any, context: Any, n: int, rng: Any) -> Compared:
    """Return at most n rows, without draws, and their contexts, or contexts that came without rows."""
    choice = np.random.default_rng(np.asarray(jax.random.key_data(as_key(rng))).tolist())
    inputs, event, shape = Inputs(result), as_event(result.input_dim), as_context(result.context_dim)
    keywords = inputs.context(context)
    contexts, notes, word = np.asarray(keywords["context"]) if keywords else None, list[str](), "rows"
    if rows is not None:
        rows = inputs.rows(rows)
        as_array(rows, "rows")
        rows = np.asarray(rows)
        if rows.shape[1:] != event or not len(rows):
            raise FlowsError(f"plot: rows has shape {rows.shape}; expected {with_axis(event)}, with one row at least")
        contexts = None if shape is None else np.asarray(inputs.row_contexts(keywords, len(rows)))
    elif result.kept is not None and contexts is None:
        rows, contexts, word = *held_out_rows(result.kept, event, choice), "rows held out"
    else:
        notes = _without_rows(result, context is not None)
        if shape is not None and contexts is None:
            raise FlowsError(
                "plot: the model has a context, and there are no rows held out with their context; give rows and context, "
                f"or a context alone, {shape} or {with_axis(shape)}"
            )
        if contexts is not None and contexts.shape != shape and (contexts.shape[1:] != shape or not contexts.size):
            raise FlowsError(
                f"plot: context has shape {contexts.shape}; expected {shape}, one for all draws, or {with_axis(shape)}"
            )
    if contexts is not None:
        check_finite(contexts[None] if contexts.shape == shape else contexts, "contexts")
    if rows is None:
        if contexts is not None and contexts.shape != shape:
            (contexts,) = some(choice, n, contexts)
        return Compared(None, None, "", "", notes, contexts)
    check_finite(rows, "rows")
    total = f"{len(rows):,} {word}"
    label = total if len(rows) <= n else f"{n:,} of {total}"
    rows, contexts = some(choice, n, rows, contexts)
    return Compared(np.asarray(inputs.on_turn(rows), np.float64), None, label, "", notes, contexts)


def _without_rows(result: Any, with_context: bool) -> list[str]:
    """Return remarks on a picture without rows."""
    if (diagnostics := getattr(result, "diagnostics", None)) is not None:
        log_z = diagnostics.log_normalizer
        missing = ["importance weights are in no file, nor of other params"] if result.log_weights is None else []
        return [f"log Z {log_z.value:.4f} +- {log_z.standard_error:.4f}", *missing]
    if with_context:
        return ["without rows, as the context was given alone"]
    return ["without rows: those held out are in no file, rows= gives some"]


def with_axis(shape: Shape | None) -> str:
    """Return a shape with a leading axis of rows, as text."""
    return f"(rows, {', '.join(map(str, shape or ()))})"


def quantiles_given(result: Any, contexts: np.ndarray, n: int, rng: Any) -> np.ndarray:
    """Return quantiles at `SHARES` of one column for each context, (k, 3): by the map of the model, or by n draws for each."""
    if result.cdf_by == "map":
        return np.asarray(result.quantile(SHARES, context=contexts), float)
    drawn = np.asarray(result.draw(rng, n, context=contexts), float)
    return np.moveaxis(np.quantile(drawn.reshape(len(contexts), n), SHARES, axis=1), 0, 1)


def held_out_rows(held_out: Any, event: Shape, choice: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """Return rows held out and their contexts; all folds together, and rows with weights drawn in proportion to these."""
    folds = held_out.x.ndim - len(event) - 1
    arrays: list[Any] = [None if array is None else array.reshape(-1, *array.shape[1 + folds :]) for array in held_out]
    rows, context, weights = arrays
    if weights is not None:
        drawn = np.sort(choice.choice(len(rows), len(rows), p=weights / weights.sum()))
        rows, context = rows[drawn], None if context is None else context[drawn]
    return rows, context
