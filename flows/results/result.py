"""What a fit returns, and a file gives back: a distribution that knows its columns, its history and its held-out rows."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flows.core import Array, Distribution, FlowsError, part_of, positive, positive_int
from flows.core.contract import DistributionLike
from flows.core.inputs import as_array, as_context, as_event, as_key
from flows.core.publish import publish
from flows.diagnostics.rows import RowReport, verify_rows
from flows.persistence.models import save_model
from flows.results.frames import Columns, framed, in_order
from flows.results.history import History
from flows.results.line import COLUMN, line_of
from flows.results.page import page_of

KEPT = 2_000  # rows held out, at most, whose scores are kept
DRAWS = 10_000  # of each context, where a distribution function is counted
PIECE = 2_000_000  # numbers drawn together for that


class Kept(NamedTuple):
    """Rows held out, (rows, *event), and their context; of folds with an axis of members in front, each with its own."""

    x: np.ndarray
    context: np.ndarray | None = None


class FitResult(Distribution):
    """A fitted distribution, `params, log_pdf, sample = result`, with what is asked of it most.

    It is a pytree of its params: `jax.tree.map` and `jax.jit` take it, `_replace` gives it other params, and `pickle` makes
    the functions anew of `init_fun`. `flows.load` gives it back from a file.

    Attributes:
        init_fun: the fitted model as a constructor's value, with its standardisation inside.
        input_dim, context_dim: what init_fun was called with.
        history: "train_loss" and "validation_loss" after each epoch (minus the mean log_pdf, nats a row, original units), and
            "best_epoch", counted from 0, whose params these are, or -1 for those of the start, whose validation loss is
            "start_loss"; "error", the standard error of the validation loss; "skipped", how many steps of each epoch were not
            taken; "gaussian_loss", that of the closed-form Gaussian on the same held-out rows (of vectors of at most 512
            columns; with a context its mean is linear in it); "rows" and "held_out", how many there were; "batch_size",
            "max_epochs" and "patience", as they were used. A dict that draws itself: `history.plot()`. `history.interrupted`
            is whether Ctrl-C ended the fit.
        columns, context_columns: names of the columns of the tables it was fitted to, or None.
        seconds: what the fit took, None of a model from a file.
    """

    init_fun: DistributionLike
    input_dim: Any
    context_dim: Any
    history: History
    table: Columns | None
    context_table: Columns | None
    kept: Kept | None
    seconds: float | None
    _scores: np.ndarray | None

    def __new__(
        cls,
        params,
        log_pdf,
        sample,
        init_fun=None,
        input_dim=None,
        context_dim=0,
        history=None,
        *,
        table=None,
        context_table=None,
        kept=None,
        scores=None,
        seconds=None,
        **more,
    ):
        self = super().__new__(cls, params, log_pdf, sample)
        history = History() if history is None else history
        vars(self).update(init_fun=init_fun, input_dim=input_dim, context_dim=context_dim, history=history)
        vars(self).update(table=table, context_table=context_table, kept=kept, seconds=seconds, _scores=scores, **more)
        return self

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        jax.tree_util.register_pytree_with_keys(cls, _flatten, _unflatten)

    @property
    def columns(self) -> tuple[str, ...] | None:
        return None if self.table is None else self.table.names

    @property
    def context_columns(self) -> tuple[str, ...] | None:
        return None if self.context_table is None else self.context_table.names

    def log_prob(self, x: Any, *, context: Any = None, rng: Any = None) -> Array:
        """log p(x) of each row, (rows,), in nats, by the fitted params.

        Args:
            x: (rows, *event), or a table, whose columns are put in the order of those fitted to, by name.
            context: (rows, *context), (*context,) shared by all, or a table.
            rng: as of log_pdf.

        Errors:
            FlowsError: a table that lacks a column, or has others. TypeError: a column that is no number. As of log_pdf.
        """
        given = {} if rng is None else {"rng": rng}
        return self.log_pdf(self.params, self._rows(x), **self._context(context), **given)

    def draw(self, rng: Any, n: int = 1, *, context: Any = None) -> Any:
        """Draws by the fitted params: (n, *event), a table where the model was fitted to one.

        Of a batch of contexts, (rows, *context) or a table of them, an array (rows, n, *event): n draws for each.

        Args:
            rng: key or seed.
            n: how many.
            context: (*context,) for all, (rows, *context), or a table.
        """
        n, given = positive_int(n, "draw: n"), self._context(context)
        if not self._batched(given):
            return framed(self.sample(rng, self.params, n, **given), self.table)
        rows = jnp.repeat(given["context"], n, 0)
        drawn = self.sample(rng, self.params, len(rows), context=rows)
        return drawn.reshape(-1, n, *drawn.shape[1:])

    @property
    def cdf_by(self) -> str:
        """How `cdf`, `quantile` and `interval` are found: by the model's own "map", which is exact, or by "draws"."""
        return "draws" if self._line is None else "map"

    def cdf(self, x: Any, *, context: Any = None, rng: Any = 0) -> Array:
        """P(X <= x) of one column: for each row (n, 1) of x, (n,).

        By the model's own map where it is monotone, otherwise by the share of 10,000 draws (`cdf_by` says which).

        Args:
            x: (n, 1), or a table of one column.
            context: (n, *context), (*context,) or a table.
            rng: key or seed, of the draws.

        Errors:
            FlowsError: a model of several columns.
        """
        x, given = as_array(self._rows(x), "x"), self._context(context)
        self._check_column("cdf")
        if x.ndim != 2 or x.shape[1:] != COLUMN:
            raise FlowsError(f"cdf: x has shape {x.shape}; expected (rows, 1)")
        if self._line is not None:
            return self._line.cdf(self.params, x[:, 0], self._of_each(given, len(x)))
        draws = self._draws(as_key(rng), given, len(x))
        shares = np.stack([(own <= one).mean() for own, one in zip(draws, np.asarray(x), strict=True)])
        return jnp.asarray(np.where(np.isnan(np.asarray(x)[:, 0]), np.nan, shares), x.dtype)

    def quantile(self, q: Any, *, context: Any = None, rng: Any = 0) -> Array:
        """The x with P(X <= x) = q of one column: of the shape of q, and (n, *q.shape) for n contexts.

        Args:
            q: between 0 and 1, a number or an array.
            context: (*context,) for one, (n, *context), or a table.
            rng: key or seed, of the draws where `cdf_by` is "draws".

        Errors:
            FlowsError: a model of several columns, or q outside [0, 1].
        """
        shares, given = np.asarray(as_array(q, "q"), float), self._context(context)
        self._check_column("quantile")
        if not ((shares >= 0) & (shares <= 1)).all():
            raise FlowsError(f"quantile: q is {q!r:.80}; expected numbers from 0 to 1")
        rows = len(given["context"]) if self._batched(given) else 1
        if self._line is None:
            draws = self._draws(as_key(rng), given, rows)
            found = np.stack([np.quantile(own, shares) for own in draws])
        else:
            dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(self.params))
            u = jnp.tile(jnp.asarray(shares.ravel(), dtype), rows)
            contexts = self._of_each(given, rows)
            contexts = None if contexts is None else jnp.repeat(contexts, shares.size, 0)
            found = self._line.quantile(self.params, u, contexts).reshape(rows, *shares.shape)
        return jnp.asarray(
            found if self._batched(given) else found[0], jnp.result_type(jnp.float32, *jax.tree.leaves(self.params))
        )

    def interval(self, share: float = 0.9, *, context: Any = None, rng: Any = 0) -> tuple[Array, Array]:
        """The ends between which one column lies with this probability, as likely above as below: (n,) each for n contexts.

        Args:
            share: of the probability, in (0, 1).
            context, rng: as of `quantile`.
        """
        if not 0 < (share := positive(share, "interval: share")) < 1:
            raise FlowsError(f"interval: share is {share}; expected a number between 0 and 1, such as 0.9")
        both = self.quantile([(1 - share) / 2, (1 + share) / 2], context=context, rng=rng)
        return both[..., 0], both[..., 1]

    @property
    def scores(self) -> np.ndarray:
        """log p of at most 2,000 rows held out, (rows,), in nats; after folds (folds, rows), each by the member that has not
        seen them."""
        if self._scores is None:
            if self.kept is None:
                raise FlowsError(
                    "there are no scores of rows held out: the model was not fitted to rows, its params were replaced, or its "
                    "file was written by flows.save; fit it with flows.fit, and save it with result.save"
                )
            self._scores = np.asarray(self._scored(self.kept), np.float64)
        return self._scores

    @property
    def has_scores(self) -> bool:
        return self._scores is not None or self.kept is not None

    def anomaly(self, x: Any, *, context: Any = None) -> np.ndarray:
        """How usual each row is, (rows,): (1 + held-out scores no higher than x's) / (1 + their number).

        Of rows like those fitted to, a share a has at most the value a, whatever the model; small values are anomalies. The
        score is log_prob, and the least value 1 / (1 + number of scores). After folds each member ranks x among the rows that
        it has not seen.

        Args:
            x, context: as of `log_prob`.

        Errors:
            FlowsError: there are no scores of rows held out.
        """
        known = np.atleast_2d(self.scores)
        own = np.atleast_2d(np.asarray(self._scores_of(x, context, len(known)), float))
        below = sum(np.searchsorted(np.sort(a), b, side="right") for a, b in zip(known, own, strict=True))
        return np.where(np.isnan(own).any(0), np.nan, (1 + below) / (1 + known.size))

    def verify(self, data: Any, *, context: Any = None) -> RowReport:
        """Which rows of data the model is not to be trusted on: their round trip or log-det misses, or is no number.

        Args:
            data, context: as of `log_prob`.

        Returns:
            A `RowReport`: print it, or read `.passed` and `.rows`.

        Errors:
            FlowsError: the model has no bijection to look at.
        """
        rows, given = as_array(self._rows(data), "data"), self._context(context)
        log_p = np.asarray(self.log_pdf(self.params, rows, **given), float)
        of_each = self._of_each(given, len(rows))
        return verify_rows(self.init_fun, self.params, self.input_dim, self.context_dim, rows, of_each, log_p)

    def save(self, path: Any, metadata: dict | None = None, *, allow_nan: bool = False) -> None:
        """Write the result to one file, for `flows.load(path)`, with its history, columns and held-out scores; arguments as of
        `flows.save`."""
        from flows.results.files import to_tensors

        save_model(
            path, self.init_fun, self.params, self.input_dim, self.context_dim, metadata,
            allow_nan=allow_nan, more=lambda: to_tensors(self),
        )  # fmt: skip

    def __repr__(self) -> str:
        return "\n".join(f"{name:14} {text}".rstrip() for name, text in self._summary())

    def _repr_html_(self) -> str:
        return page_of(self._summary(), self.history)

    def _summary(self) -> list[tuple[str, str]]:
        """The lines of its repr: a name and what it says."""
        history, shape = self.history, as_event(self.input_dim)
        names = "" if self.columns is None else f" ({', '.join(self.columns[:4])}{', ...' * (len(self.columns) > 4)})"
        of = f"{shape[0]} column{'s' * (shape[0] != 1)}{names}" if len(shape) == 1 else f"events {shape}"
        lines = [(type(self).__name__, f"{int(history['rows']):,} rows of {of}" if "rows" in history else of)]
        lines.append(("  model", f"{self.init_fun!r:.100}{'...' * (len(repr(self.init_fun)) > 100)}"))
        if "validation_loss" in history:
            best, error = history.best, float(np.mean(history.get("error", np.nan)))
            spread = f" +- {error:.3f}" if np.isfinite(error) else ""
            if "held_out" in history:
                rows = f"{int(history['held_out']):,} rows held out"
                lines.append(("  fit", f"log-likelihood {-best:.3f}{spread} nats, of {rows}"))
            else:  # of a fit to a density
                lines.append(("  fit", f"loss {best:.3f} nats"))
            if "gaussian_loss" in history:
                lines.append(("  Gaussian", f"log-likelihood {-float(history['gaussian_loss']):.3f}, of the same rows"))
            epochs, which = np.shape(history["validation_loss"])[-1], sorted(set(np.ravel(history["best_epoch"]).tolist()))
            number = "-".join(map(str, which[:1] + which[1:][-1:]))
            kept = f"best epoch {number} of {epochs}" if which[-1] >= 0 else f"kept the start, of {epochs} epochs"
            lasted = "" if self.seconds is None else f", {self.seconds:.1f} s"
            lines.append(("  training", kept + lasted))
        return lines

    def _replace(self, **changes: Any) -> "FitResult":
        has = {**self._asdict(), **self._attributes()}
        if unknown := changes.keys() - has:
            raise TypeError(f"_replace: {type(self).__name__} has no {', '.join(sorted(unknown))}; it has {', '.join(has)}")
        stands = changes.get("params", self.params) is self.params  # scores are those of its params
        return type(self)(**{**has, **changes}, scores=self._scores if stands else None)

    def __reduce__(self) -> tuple:
        return _made_anew, (type(self), jax.device_get(self.params), {**self._attributes(), "scores": self._scores})

    def _attributes(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @property
    def _line(self) -> Any:
        if as_event(self.input_dim) != COLUMN:
            return None
        return line_of(self.init_fun, as_context(self.context_dim))

    def _check_column(self, what: str) -> None:
        if as_event(self.input_dim) != COLUMN:
            raise FlowsError(
                f"{what}: the event of this model is {as_event(self.input_dim)}; expected one of a single column, (1,)"
            )

    def _rows(self, x: Any) -> Any:
        return in_order(x, self.table, "x")

    def _context(self, context: Any) -> dict[str, Any]:
        return {} if context is None else {"context": as_array(in_order(context, self.context_table, "context"), "context")}

    def _batched(self, given: dict[str, Any]) -> bool:
        return bool(given) and given["context"].ndim == 1 + len(as_context(self.context_dim) or ())

    def _of_each(self, given: dict[str, Any], rows: int) -> Any:
        """A context for each row, or None."""
        if not given:
            if as_context(self.context_dim) is not None:
                raise FlowsError(f"context is missing; expected (rows, *{as_context(self.context_dim)}), or one for all rows")
            return None
        context, shape = given["context"], as_context(self.context_dim) or ()
        if not self._batched(given):
            context = jnp.broadcast_to(context, (rows, *context.shape))
        if context.shape != (rows, *shape):
            raise FlowsError(f"context has shape {given['context'].shape}; expected {(rows, *shape)}, or {shape} for all rows")
        return context.astype(jnp.result_type(jnp.float32, *jax.tree.leaves(self.params)))

    def _draws(self, key: Array, given: dict[str, Any], rows: int) -> Iterable[np.ndarray]:
        """Of each row DRAWS of one column, (DRAWS, 1)."""
        if not self._batched(given):
            one = np.asarray(self.sample(key, self.params, DRAWS, **given))
            return [one] * rows
        step = max(PIECE // DRAWS, 1)
        pieces = [given["context"][i : i + step] for i in range(0, rows, step)]
        keys = jax.random.split(key, len(pieces))
        drawn = [
            np.asarray(self.sample(own, self.params, DRAWS * len(piece), context=jnp.repeat(piece, DRAWS, 0)))
            for own, piece in zip(keys, pieces, strict=True)
        ]
        return [row for each in drawn for row in each.reshape(-1, DRAWS, 1)]

    def _scored(self, kept: Kept) -> Any:
        given: dict[str, Any] = {} if kept.context is None else {"context": kept.context}
        return self.log_pdf(self.params, kept.x, **given)

    def _scores_of(self, x: Any, context: Any, members: int) -> Any:
        return self.log_prob(x, context=context)


def _made_anew(kind: type[FitResult], params: Any, attributes: dict[str, Any]) -> FitResult:
    event, context = as_event(attributes["input_dim"]), as_context(attributes["context_dim"])
    part = part_of(attributes["init_fun"], jax.random.key(0), event, context)
    params = jax.tree.map(jax.numpy.asarray, params)
    return kind(params, *publish(part, params), **attributes)


class _Rest:
    """All of a result but its params; that of two results is equal where their functions are."""

    def __init__(self, result: FitResult):
        self.result, self.functions = result._replace(params=None), result[1:]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rest) and self.functions == other.functions

    def __hash__(self) -> int:
        return hash(self.functions)


def _flatten(result: FitResult) -> tuple[tuple, _Rest]:
    return ((jax.tree_util.GetAttrKey("params"), result.params),), _Rest(result)


def _unflatten(rest: _Rest, children: Iterable[Any]) -> FitResult:
    (params,) = children
    return rest.result._replace(params=params)


jax.tree_util.register_pytree_with_keys(FitResult, _flatten, _unflatten)
