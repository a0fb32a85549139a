"""One model of every column given any other columns: densities and draws of any of them. Family: Any columns given any."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flows.conditionals import Conditional, Number, check_column
from flows.conditioners.dense import check_dropout, dense_layers, product
from flows.conditioners.residual import Blocks
from flows.core import (
    Array,
    FlowsError,
    Region,
    Rounding,
    Shape,
    Support,
    Traits,
    as_context,
    boolean,
    check_widths,
    distribution,
    in_pieces,
    naming,
    on_a_line,
    positive_int,
    resolved,
)

ASKED, GIVEN, ABSENT = 0, 1, 2  # roles
LAST_SCALE = 0.01  # of the heads' weights at the start


def _support(columns: tuple[Conditional, ...], num_bins: int, **settings: Any) -> Support:
    def region(event: Shape) -> Region:
        return _Layout(_columns(columns, event), num_bins).region()

    return Support(region, region)


def _traits(columns: tuple[Conditional, ...], **settings: Any) -> Traits:
    steps = [column.step for column in columns]
    return Traits(prepares=True, joins=True, rounding=Rounding(steps, None) if any(steps) else None)


@distribution(batched=True, support=_support, traits=_traits)
def AnySubset(*columns: Conditional, hidden: tuple[int, ...] = (128, 128), num_bins: int = 16, dropout: float = 0.0):
    """Every column given any other columns: log p(x_A | x_B) for any sets of columns A and B, in nats.

    One network sees the values that are known, and which they are, and makes the distribution of each other column. A joint
    density is the chain rule in the order of the columns, log p(x_A | x_B) = sum_i log p(x_i | x_B, x_j for j < i in A).

    Without a context all columns are asked. With `context_dim=(2, d)`, context[0] has the values that are given, and context[1]
    the role of each column: 0 asked, 1 given, 2 absent. `log_pdf` reads the asked entries of x and no others; `sample` returns
    given values to the bit, and NaN for absent ones. Params are the same with and without a context. A row that asks nothing
    has log p = 0; a row with another role, or whose given values are impossible, has NaN.

    With `train=True` and `rng`, `log_pdf` is an estimate by one pass: of n asked columns t are given too, at random, t uniform
    on 0 to n - 1, and n / (n - t) times the sum of the others is unbiased for the mean over all orders of the columns.

    Args:
        columns: `flows.conditionals` values, one for each column: Number, Category, Angle; without any, all are `Number()`.
        hidden: units of the residual network's blocks, all equal; one block for each.
        num_bins: bins of the splines of numbers and angles.
        dropout: the share of hidden units dropped with `train=True`, which needs `rng`; in [0, 1).

    Params:
        {"columns": the params of each kind, measured middles and scales under "fixed"; "layers": the network's, {"w": (inputs,
        outputs), "b"}; "heads": {"w": (width, num_params * columns), "b"} for each kind}.

    Cost:
        A density is one pass of the network for each column that is asked in some row, in pieces that fit the cache; draws are
        one pass for each column.

    Errors:
        FlowsError: a column that is not a kind; hidden widths that differ; an event that is not a vector with one entry for
            each column; a context that is not (2, d); dropout with `train=True` and no `rng`.

    Source:
        Strauss and Oliva, "Arbitrary Conditional Distributions with Energy", 2021, arXiv:2102.04426; Uria, Murray and
        Larochelle, "A Deep and Tractable Density Estimator", 2014, arXiv:1310.1757, equation 8; Li, Akbar and Oliva, "ACFlow:
        Flow Models for Arbitrary Conditional Likelihoods", 2020, arXiv:1909.06319.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> model = flows.AnySubset(flows.conditionals.Number(), flows.conditionals.Category(3), hidden=(8,))
        >>> params, log_pdf, sample = model(0, 2, context_dim=(2, 2))
        >>> category_given_number = jnp.array([[0.5, 0.0], [1.0, 0.0]])
        >>> log_pdf(params, jnp.array([[9.0, 1.0]]), context=category_given_number).shape
        (1,)
        >>> sample(1, params, 2, context=category_given_number)[:, 0].tolist()
        [0.5, 0.5]
    """
    columns = tuple(check_column(column, f"AnySubset: column {i}") for i, column in enumerate(columns))
    hidden, dropout = check_widths(hidden, "AnySubset: hidden"), check_dropout(dropout, "AnySubset")
    num_bins = positive_int(num_bins, "AnySubset: num_bins", most=1000)
    if len(set(hidden)) != 1:
        raise FlowsError(f"AnySubset: hidden is {hidden}; expected one width for each block, all equal, such as (128, 128)")
    body = Blocks("AnySubset", hidden[0], len(hidden), "relu", LAST_SCALE, dropout, False)

    def init_fun(rng, shape, context_dim=0, init_inputs=None, init_context=None):
        layout = _Layout(_columns(columns, shape), num_bins)
        if as_context(context_dim) not in (None, (2, layout.d)):
            raise FlowsError(
                f"AnySubset: context_dim is {context_dim}; expected {(2, layout.d)}: given values, and the role of each column"
            )
        x = jnp.zeros((layout.d, 0)) if init_inputs is None else init_inputs.T
        there = jnp.ones(x.shape, bool)
        if init_inputs is not None and init_context is not None:
            values, role = init_context[:, 0].T, init_context[:, 1].T
            x, there = jnp.where(role == GIVEN, values, x), role != ABSENT
        sizes = [sum(layout.inputs) + layout.d, *hidden[:1] * (2 * len(hidden) + 1)]
        keys = jax.random.split(rng)
        layers = dense_layers(keys[0], pairwise(sizes), body.scales[:-1])
        heads = dense_layers(
            keys[1], [(hidden[0], g.num_params * len(at)) for g, at in layout.groups], [LAST_SCALE] * len(layout.groups)
        )
        of_columns, starts = [], []
        for (group, at), head in zip(layout.groups, heads, strict=True):
            measured, start = group.init(x[at], there[at])
            of_columns.append(measured)
            starts.append({**head, "b": start.reshape(-1)})
        params = {"columns": tuple(of_columns), "layers": layers, "heads": tuple(starts)}

        def log_pdf(params, x, context=None, rng=None, train=False):
            if train and rng is not None:
                return layout.one_pass(body, params, *layout.roles(params, x, context), rng)
            return in_pieces(
                lambda params, x, context: layout.chain_rule(body, params, *layout.roles(params, x, context)),
                params, x, context, event=(sum(layout.inputs) + hidden[0],),
            )  # fmt: skip

        def sample(rng, params, num_samples, context=None):
            u = jax.random.uniform(rng, (num_samples, layout.d), params["layers"][0]["b"].dtype)
            return in_pieces(
                lambda params, u, context: layout.draw(body, params, u, context),
                params, u, context, event=(sum(layout.inputs) + hidden[0],),
            )  # fmt: skip

        return params, naming(log_pdf, {"context", "rng", "train"}), sample

    return init_fun


def _columns(columns: tuple[Conditional, ...], event: Shape) -> tuple[Conditional, ...]:
    if len(event) != 1:
        raise FlowsError(f"AnySubset: the event is {event}; expected a vector")
    columns = columns or (Number(),) * event[0]
    if len(columns) != event[0]:
        raise FlowsError(f"AnySubset: the event is {event}; expected ({len(columns)},), as {len(columns)} columns are given")
    return columns


class _Layout:
    """Columns by their kinds: those of a kind are computed together, so that compile time grows with kinds alone."""

    def __init__(self, columns: tuple[Conditional, ...], num_bins: int):
        self.d, kinds = len(columns), list(dict.fromkeys(column.kind for column in columns))
        self.groups = []
        for kind in kinds:
            at = [i for i, column in enumerate(columns) if column.kind is kind]
            self.groups.append((columns[at[0]].group([columns[i] for i in at], num_bins), np.asarray(at, np.int32)))
        self.inputs = [n for group, _ in self.groups for n in group.inputs]
        self.column_of_input = np.repeat(np.concatenate([at for _, at in self.groups]), self.inputs)
        self.group_of, self.place_of = np.zeros((2, self.d), np.int32)
        for g, (_, at) in enumerate(self.groups):
            self.group_of[at], self.place_of[at] = g, np.arange(len(at))

    def region(self) -> Region:
        """Return the region of a row."""
        regions = [resolved(group.regions(), (len(at),)) for group, at in self.groups]
        order = np.argsort(np.concatenate([at for _, at in self.groups]))
        return Region(*(np.concatenate(fields)[order] for fields in zip(*(region.values() for region in regions), strict=True)))

    def by_name(self, params: Any) -> list[dict[str, Array]]:
        """Return the constants and params of the columns of each group, by name."""
        dtype = params["layers"][0]["b"].dtype
        return [
            {name: jnp.asarray(entry, dtype) for name, entry in group.constants.items()}
            | {name: leaf for name, leaf in of_columns.items() if name != "fixed"} | of_columns.get("fixed", {})
            for (group, _), of_columns in zip(self.groups, params["columns"], strict=True)
        ]  # fmt: skip

    def roles(self, params: Any, x: Array, context: Array | None) -> tuple[Array, ...]:
        """Return values that have a density (d, batch), masks of asked and given columns, and what to add to log p: -inf where
        an asked value is impossible, NaN where a value is NaN, a given one is impossible, or a role is none."""
        x = x.T
        if context is None:
            asked, given, wrong = jnp.ones(x.shape, bool), jnp.zeros(x.shape, bool), jnp.zeros(x.shape[1], bool)
        else:
            values, role = context[:, 0].T, context[:, 1].T
            asked, given = role == ASKED, role == GIVEN
            x, wrong = jnp.where(given, values, x), ~(asked | given | (role == ABSENT)).all(0)
        inside, safe = jnp.zeros(x.shape, bool), jnp.zeros(x.shape, x.dtype)
        for (group, at), c in zip(self.groups, self.by_name(params), strict=True):
            inside, safe = inside.at[at].set(group.inside(c, x[at])), safe.at[at].set(group.safe(c))
        known = asked | given
        wrong = wrong | (known & jnp.isnan(x)).any(0) | (given & ~inside).any(0)
        impossible = (asked & ~inside).any(0)
        penalty = jnp.where(wrong, jnp.nan, jnp.where(impossible, -jnp.inf, 0.0)).astype(x.dtype)
        return jnp.where(known & inside, x, safe), asked, given, penalty

    def seen(self, columns: list, x: Array) -> Array:
        """Return what the network sees of all columns, (inputs, batch)."""
        return jnp.concatenate([group.seen(c, x[at]) for (group, at), c in zip(self.groups, columns, strict=True)])

    def trunk(self, body: Blocks, params: Any, seen: Array, known: Array, rng: Any = None) -> Array:
        """Return the last hidden units, (width, batch), where some columns are known."""
        last = 2 * body.num_blocks + 1

        def dense(i: int, h: Array) -> Array:
            if i == last:
                return h
            return product(params["layers"][i]["w"], h) + params["layers"][i]["b"][:, None]

        inputs = jnp.concatenate([jnp.where(known[self.column_of_input], seen, 0), known.astype(seen.dtype)])
        return body.formula(dense, {}, inputs, rng, rng is not None)

    def head(self, g: int, params: Any, h: Array, place: Array) -> Array:
        """Return theta of one column of a group, (num_params, 1, batch)."""
        head, n = params["heads"][g], self.groups[g][0].num_params
        w = lax.dynamic_index_in_dim(head["w"].reshape(len(h), n, -1), place, 2, keepdims=False)
        b = lax.dynamic_index_in_dim(head["b"].reshape(n, -1), place, 1)
        return (product(w, h) + b)[:, None]

    def chain_rule(self, body: Blocks, params: Any, x: Array, asked: Array, given: Array, penalty: Array) -> Array:
        """Return log p of what is asked, one pass for each column that is asked in some row."""
        columns, order = self.by_name(params), jnp.arange(self.d)[:, None]
        seen, total = self.seen(columns, x), penalty
        for g, (group, at) in enumerate(self.groups):

            def term(total: Array, where: Any, g: int = g, group: Any = group) -> tuple[Array, None]:
                column, place, c = where

                def scored(_: None) -> Array:
                    h = self.trunk(body, params, seen, given | (asked & (order < column)))
                    c_here = jax.tree.map(lambda leaf: leaf[None], c)
                    return group.log_p(c_here, self.head(g, params, h, place), x[column][None])[0]

                here = asked[column]
                log_p = lax.cond(here.any(), scored, lambda _: jnp.zeros_like(total), None)
                return total + jnp.where(here, log_p, 0), None

            total = lax.scan(term, total, (jnp.asarray(at), jnp.arange(len(at)), columns[g]))[0]
        return total

    def one_pass(self, body: Blocks, params: Any, x: Array, asked: Array, given: Array, penalty: Array, rng: Any) -> Array:
        """Return an estimate of log p of what is asked: n / (n - t) times the sum over all columns but t, which are given."""
        columns = self.by_name(params)
        keys = jax.random.split(rng, 3)
        n = asked.sum(0, dtype=x.dtype)
        t = jnp.minimum(jnp.floor(jax.random.uniform(keys[0], n.shape, x.dtype) * n), jnp.maximum(n - 1, 0))
        rank = jnp.where(asked, jax.random.uniform(keys[1], asked.shape, x.dtype), jnp.inf)
        limit = jnp.take_along_axis(jnp.sort(rank, 0), t[None].astype(jnp.int32), 0)
        known = given | (asked & (rank < limit))
        h = self.trunk(body, params, self.seen(columns, x), known, keys[2])
        total = jnp.zeros_like(penalty)
        for (group, at), c, head in zip(self.groups, columns, params["heads"], strict=True):
            theta = (product(head["w"], h) + head["b"][:, None]).reshape(group.num_params, len(at), -1)
            total += jnp.where(asked[at] & ~known[at], group.log_p(c, theta, x[at]), 0).sum(0)
        return total * n / jnp.maximum(n - t, 1) + penalty

    def draw(self, body: Blocks, params: Any, u: Array, context: Array | None) -> Array:
        """Return rows (batch, d) at uniform numbers, column after column."""
        columns, order, u = self.by_name(params), jnp.arange(self.d)[:, None], u.T
        if context is None:
            asked, given, values = jnp.ones(u.shape, bool), jnp.zeros(u.shape, bool), u
        else:
            values, role = context[:, 0].T, context[:, 1].T
            asked, given = role == ASKED, role == GIVEN
        x = self.roles(params, jnp.zeros_like(u).T, context)[0]

        def branch(g: int, group: Any) -> Any:
            def drawn(h: Array, place: Array, u: Array) -> Array:
                c = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, place, 0), columns[g])
                return group.draw(c, self.head(g, params, h, place), u[None])[0]

            return drawn

        branches = [branch(g, group) for g, (group, _) in enumerate(self.groups)]

        def step(x: Array, where: Any) -> tuple[Array, None]:
            column, g, place, u = where
            h = self.trunk(body, params, self.seen(columns, x), given | (asked & (order < column)))
            drawn = lax.switch(g, branches, h, place, u)
            return x.at[column].set(jnp.where(asked[column], drawn, x[column])), None

        x = lax.scan(step, x, (jnp.arange(self.d), jnp.asarray(self.group_of), jnp.asarray(self.place_of), u))[0]
        wrong = ~(asked | given | (role == ABSENT)).all(0) if context is not None else jnp.zeros(u.shape[1], bool)
        x = jnp.where(asked, x, jnp.where(given, values, jnp.nan))
        return jnp.where(wrong, jnp.nan, x).T


def gaps(x: Any, fill: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rows with gaps as `AnySubset` takes them: `x, context = flows.gaps(array)`. NaN means a missing value here.

    Gaps get the middle value of their column, and are absent: the other values are asked, so `fit` and `log_pdf` take the rows
    by what is there. With `fill=True` gaps are asked and the other values given, so that `sample` fills them.

    Args:
        x: (rows, d), numbers; NaN where a value is missing.
        fill: whether gaps are asked.

    Returns:
        Rows without NaN, (rows, d), and their context, (rows, 2, d): given values, and roles.

    Errors:
        FlowsError: x is not a table of numbers, or a column has no value.

    Example:
        >>> import flows, numpy as np
        >>> x, context = flows.gaps(np.array([[1.0, np.nan], [3.0, 4.0]]))
        >>> x.tolist(), context[0, 1].tolist()
        ([[1.0, 4.0], [3.0, 4.0]], [0.0, 2.0])
    """
    x = _numbers(x)
    missing, fill = np.isnan(x), boolean(fill, "gaps: fill")
    if len(empty := np.flatnonzero(missing.all(0))):
        raise FlowsError(f"gaps: column {empty[0]} has no value in {len(x)} rows; leave it out")
    if not np.isfinite(x[~missing]).all():
        raise FlowsError("gaps: x has infinite values; expected finite numbers, and NaN where a value is missing")
    whole = np.where(missing, np.nanquantile(x, 0.5, axis=0, method="lower").astype(x.dtype), x)  # a value of the column
    role = np.where(missing, ASKED, GIVEN) if fill else np.where(missing, ABSENT, ASKED)
    given = np.where(missing, 0, x) if fill else np.zeros_like(x)
    return whole, np.stack([given, role.astype(x.dtype)], 1)


def _numbers(x: Any) -> np.ndarray:
    try:
        array = np.asarray(x)
        array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    except (TypeError, ValueError):
        raise FlowsError(f"gaps: x is {on_a_line(x)}; expected a table of numbers") from None
    if array.ndim != 2 or not array.size:
        raise FlowsError(f"gaps: x has shape {array.shape}; expected (rows, columns)")
    return array
