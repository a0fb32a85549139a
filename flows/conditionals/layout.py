"""The network of `AnySubset` and its passes. Columns of a kind are computed together, so that compile time grows with kinds."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flows.conditionals.base import Group, Kind
from flows.conditionals.roles import by_roles
from flows.conditioners.dense import dense_layers, product
from flows.conditioners.residual import Blocks
from flows.core import Array, Region, resolved, varying

LAST_SCALE = 0.01  # of the heads' weights at the start


class Layout:
    """Columns by their kinds, and the network that sees known columns and which they are. Arrays have features leading."""

    def __init__(self, columns: Sequence[Kind], hidden: tuple[int, ...], num_bins: int, dropout: float):
        self.d, self.width = len(columns), hidden[0]
        self.body = Blocks("AnySubset", hidden[0], len(hidden), "relu", LAST_SCALE, dropout, False)
        kinds = [type(column.inner) for column in columns]
        self.groups = list[tuple[Group, np.ndarray]]()
        for one in dict.fromkeys(kinds):
            at = np.asarray([i for i, kind in enumerate(kinds) if kind is one], np.int32)
            self.groups.append((columns[at[0]].group([columns[i] for i in at], num_bins), at))
        self.widths = [n for group, _ in self.groups for n in group.widths]
        self.column_of_input = np.repeat(np.concatenate([at for _, at in self.groups]), self.widths)
        self.group_of, self.place_of = np.zeros((2, self.d), np.int32)
        for g, (_, at) in enumerate(self.groups):
            self.group_of[at], self.place_of[at] = g, np.arange(len(at))

    def init(self, rng: Array, x: Array, there: Array) -> Any:
        """Return params, measured by values that are there."""
        inputs = sum(self.widths) + self.d + sum(group.extra for group, _ in self.groups)
        sizes, keys = [inputs, *[self.width] * (2 * self.body.num_blocks + 1)], jax.random.split(rng)
        outputs = [(self.width, group.num_params * len(at)) for group, at in self.groups]
        heads, of_columns = [], []
        for (group, at), head in zip(self.groups, dense_layers(keys[1], outputs, [LAST_SCALE] * len(outputs)), strict=True):
            measured, start = group.init(x[at], there[at])
            of_columns.append(measured)
            heads.append({**head, "b": start.reshape(-1)})
        layers = dense_layers(keys[0], pairwise(sizes), self.body.scales[:-1])
        return {"columns": tuple(of_columns), "layers": layers, "heads": tuple(heads)}

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
            | {name: leaf for name, leaf in of_columns.items() if name != "fixed"}
            | lax.stop_gradient(of_columns.get("fixed", {}))
            for (group, _), of_columns in zip(self.groups, params["columns"], strict=True)
        ]

    def roles(self, params: Any, x: Array, context: Array | None) -> tuple[Array, ...]:
        return by_roles(self.groups, self.by_name(params), x, context)

    def shown(self, columns: list, x: Array) -> Array:
        """Return what the network sees of all columns, (inputs, batch)."""
        return jnp.concatenate([group.shown(c, x[at]) for (group, at), c in zip(self.groups, columns, strict=True)])

    def trunk(self, params: Any, inputs: Array, started: list, known: Array, rng: Any = None) -> Array:
        """Return the last hidden units, (width, batch), where some columns are known; `started` is what columns start at."""
        last = 2 * self.body.num_blocks + 1

        def dense(i: int, h: Array) -> Array:
            return h if i == last else product(params["layers"][i]["w"], h) + params["layers"][i]["b"][:, None]

        more = [c["seen"] for c in started if "seen" in c]
        which = jnp.broadcast_to(known, (self.d, inputs.shape[1])).astype(inputs.dtype)
        inputs = jnp.concatenate([jnp.where(known[self.column_of_input], inputs, 0), which, *more])
        return self.body.formula(dense, {}, inputs, rng, rng is not None)

    def head(self, g: int, params: Any, h: Array, place: Array) -> Array:
        """Return theta of one column of a group, (num_params, 1, batch)."""
        head, n = params["heads"][g], self.groups[g][0].num_params
        w = lax.dynamic_index_in_dim(head["w"].reshape(len(h), n, -1), place, 2, keepdims=False)
        b = lax.dynamic_index_in_dim(head["b"].reshape(n, -1), place, 1)
        return (product(w, h) + b)[:, None]

    def column(self, params: Any, x: Array, known: Array, g: int, place: Any) -> tuple[Any, Array]:
        """Return the constants and params of one column of a group, and its theta, where some columns are known."""
        started, h = self.passed(params, x, known)
        return self.one(started[g], place), self.head(g, params, h, place)

    def passed(self, params: Any, x: Array, known: Array, rng: Any = None) -> tuple[list[Any], Array]:
        """Return what columns start at, and the last hidden units, by one pass where some columns are known."""
        columns = self.by_name(params)
        started = self.started(columns, self.begun(columns, x, known), known)
        return started, self.trunk(params, self.shown(columns, x), started, known, rng)

    def begun(self, columns: list, x: Array, known: Array) -> list[Any]:
        """Return the state of rows for each group, where some columns are known."""
        return [group.begun(c, x[at], known[at]) for (group, at), c in zip(self.groups, columns, strict=True)]

    def started(self, columns: list, states: list, known: Array) -> list[Any]:
        """Return the constants and params of columns with what they start at given the known ones."""
        return [group.started(c, state, known[at]) for (group, at), c, state in zip(self.groups, columns, states, strict=True)]

    def one(self, c: Any, place: Any) -> Any:
        """Return the constants and params of one column of a group."""
        return {name: lax.dynamic_index_in_dim(leaf, place, 0) for name, leaf in c.items()}

    def chain_rule(self, params: Any, x: Array, asked: Array, known: Array, penalty: Array) -> Array:
        """Return log p of what is asked, one pass for each column that is asked in some row."""
        return self._one_by_one(params, x, asked, known)[1] + penalty

    def draw(self, params: Any, u: Array, context: Array | None) -> Array:
        """Return rows (batch, d) at uniform numbers, a pass for each column asked anywhere; NaN for an impossible context."""
        x, asked, known, penalty = self.roles(params, jnp.zeros_like(u), context)
        x = self._one_by_one(params, x, asked, known, u.T)[0]
        if context is not None:
            x = jnp.where(known, context[:, 0].T, jnp.where(asked, x, jnp.nan))
        return jnp.where(jnp.isnan(penalty), jnp.nan, x).T

    def _one_by_one(self, params: Any, x: Array, asked: Array, known: Array, u: Array | None = None) -> tuple[Array, Array]:
        """Return entries drawn at uniform numbers u, one asked column after the other; or, without u, x and its log p."""
        columns, every = self.by_name(params), jnp.arange(self.d, dtype=jnp.int32)[:, None]

        def branch(g: int, group: Group) -> Any:
            def answer(started: list, h: Array, place: Array, x: Array, u: Array | None) -> tuple[Array, Array]:
                c, theta = self.one(started[g], place), self.head(g, params, h, place)
                if u is None:
                    return x, group.log_p(c, theta, x[None])[0]
                return group.draw(c, theta, u[None])[0], jnp.zeros_like(x)

            return answer

        branches = [branch(g, group) for g, (group, _) in enumerate(self.groups)]

        def step(carry: Any, where: Any) -> tuple[Any, None]:
            (x, total, states), (column, g, place, u) = carry, where
            here, before = asked[column], known | (asked & (every < column))

            def asked_somewhere() -> tuple[Array, Array]:
                started = self.started(columns, states, before)
                h = self.trunk(params, self.shown(columns, x), started, before)
                return lax.switch(g, branches, started, h, place, x[column], u)

            new, number = lax.cond(here.any(), asked_somewhere, lambda: (x[column], jnp.zeros_like(total)))
            x, total = x.at[column].set(jnp.where(here, new, x[column])), total + jnp.where(here, number, 0)
            # Neither within `asked_somewhere` nor independent of its results, as XLA would copy the states.
            now, parts = here & ~jnp.isnan(new).all(keepdims=True), enumerate(zip(self.groups, columns, states, strict=True))
            states = [group.learnt(self.one(c, place), s, place, x[column], now & (g == i)) for i, ((group, _), c, s) in parts]
            return (x, total, states), None

        start = varying((x, jnp.zeros(x.shape[1:], x.dtype), self.begun(columns, x, known)), (x, asked, known))
        places = jnp.arange(self.d, dtype=jnp.int32), jnp.asarray(self.group_of), jnp.asarray(self.place_of), u
        return lax.scan(step, start, places)[0][:2]

    def one_pass(self, params: Any, rng: Any, x: Array, asked: Array, known: Array, penalty: Array) -> Array:
        """Return an estimate of log p of what is asked: n / (n - t) times the sum over all columns but t, which are known."""
        keys, asked, known = jax.random.split(rng, 3), *(jnp.broadcast_to(mask, x.shape) for mask in (asked, known))
        n = asked.sum(0, dtype=x.dtype)
        t = jnp.minimum(jnp.floor(jax.random.uniform(keys[0], n.shape, x.dtype) * n), jnp.maximum(n - 1, 0))
        rank = jnp.where(asked, jax.random.uniform(keys[1], asked.shape, x.dtype), jnp.inf)
        limit = jnp.take_along_axis(jnp.sort(rank, 0), t[None].astype(jnp.int32), 0)
        known = known | (asked & (rank < limit))
        total, (started, h) = jnp.zeros_like(penalty), self.passed(params, x, known, keys[2])
        for (group, at), c, theta in zip(self.groups, started, self.thetas(params, h), strict=True):
            total += jnp.where(asked[at] & ~known[at], group.log_p(c, theta, x[at]), 0).sum(0)
        return total * n / jnp.maximum(n - t, 1) + penalty

    def thetas(self, params: Any, h: Array) -> list[Array]:
        """Return theta of all columns of each group, (num_params, columns, batch)."""
        return [
            (product(head["w"], h) + head["b"][:, None]).reshape(group.num_params, len(at), -1)
            for (group, at), head in zip(self.groups, params["heads"], strict=True)
        ]

    def expected(self, params: Any, context: Array) -> Array:
        """Return what is expected of all columns given what is known, (batch, inputs), by one pass; NaN for an impossible
        context. Inputs are as the network sees them, but numbers are in their units."""
        x, _, known, penalty = self.roles(params, jnp.zeros_like(context[:, 0]), context)
        started, h = self.passed(params, x, known)
        parts = zip(self.groups, started, self.thetas(params, h), strict=True)
        expected = [group.expected(c, theta) for (group, _), c, theta in parts]
        return jnp.where(jnp.isnan(penalty), jnp.nan, jnp.concatenate(expected)).T

    def likeliest(self, expected: np.ndarray) -> np.ndarray:
        """Return a row for each of `expected`, (batch, d): means, the likeliest codes, and directions of angles."""
        rows, region = np.full((len(expected), self.d), np.nan), self.region()
        for j in range(self.d):
            part, period = expected[:, self.column_of_input == j], region.period[j]
            turn = np.arctan2(part[:, 1], part[:, 0]) * period / (2 * np.pi) if period else part[:, 0]
            rows[:, j] = part.argmax(1) if region.classes[j] else turn
        return rows
