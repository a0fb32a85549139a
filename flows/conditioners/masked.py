"""Masked networks: output i depends on the inputs before i alone. They run whole, or feature by feature to invert a flow.
Family: Masked, for autoregressive layers."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flows.conditioners.base import Leading, conditioner
from flows.conditioners.dense import affine, as_activation, check_dropout, dense_layers, dropped, need_rng, product
from flows.core import Array, FlowsError, finite, iteration, naming, positive_int, spend

CACHE = 2**18  # floats: about the cache of one core
SEGMENTS = 4
HEAVY = 100_000  # weights from which a pass is dominated by their products
CUT = 1 / 16  # share of the work of all steps that a further segment has to save, as it has to be compiled too


@conditioner
def MaskedMLP(
    *hidden: int,
    activation: str | Callable = "relu",
    last_scale: float = 0.01,
    order: Sequence[int] | None = None,
    dropout: float = 0.0,
):
    """The network of MADE: output i depends on the inputs before i and on the context alone.

    Outputs are `(num_params, input_dim)` flattened: the first parameter of all features, then the second, and so on. Hidden
    unit j may see the first 1 + j mod (d - 1) inputs, or with a context the first j mod d, so each layer has about equally
    many units of every degree.

    Args:
        hidden: units of each hidden layer.
        activation: as in `MLP`.
        last_scale: factor on the last layer's initial weights; 0 starts exactly at constant outputs.
        order: the features in the order in which they depend on each other, such as (2, 0, 1); by default 0, 1, ...
            For a random one, put `Shuffle()` in front.
        dropout: the share of hidden units dropped with `train=True`, which needs `rng`; in [0, 1).

    Params:
        A tuple of `{"w": (inputs, outputs), "b": (outputs,)}`; masked weights are multiplied by 0 at use. The inputs of the
        first layer are the features, then the context.

    Errors:
        FlowsError: a width that is not a whole number above 0, an unknown activation; an output_dim that is not a multiple of
            input_dim; an order that is not a permutation of the features; a dropout outside its range, or one with `train=True`
            and no `rng`.

    Source:
        Germain, Gregor, Murray and Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", 2015,
        arXiv:1502.03509, equations 8-13.

    Example:
        >>> import flows, jax
        >>> params, apply_fun = flows.conditioners.MaskedMLP(16, last_scale=1.0)(0, 3, 3)
        >>> jax.jacobian(lambda x: apply_fun(params, x))(jax.numpy.ones(3))[0].tolist()  # the first depends on no input
        [0.0, 0.0, 0.0]
    """
    act = as_activation(activation)
    hidden = tuple(positive_int(units, "MaskedMLP: a hidden width") for units in hidden)
    last_scale, dropout = finite(last_scale, "MaskedMLP: last_scale"), check_dropout(dropout, "MaskedMLP")

    def net(rng, input_dim: int, output_dim: int, context_dim: int = 0):
        degrees = degrees_of("MaskedMLP", input_dim, output_dim, hidden, context_dim, order)
        return masked_mlp("MaskedMLP", rng, degrees, act, last_scale, dropout)

    return net


def masked_mlp(
    name: str, rng: Array, degrees: list[np.ndarray], act: Callable, last_scale: float, dropout: float, **options: Any
) -> tuple[tuple[dict[str, Array], ...], "Masked"]:
    """The params of a masked network with units of these degrees, and the network; options are arguments of `Masked`."""
    layers = len(degrees) - 1
    params = dense_layers(rng, pairwise(map(len, degrees)), [1.0] * (layers - 1) + [last_scale])

    def formula(dense, units, x, rng, train):
        key = need_rng(rng, name) if dropout and train else None
        for i in range(layers):
            x = act(x) if i else x
            x = dropped(x, dropout, jax.random.fold_in(key, i)) if i and key is not None else x
            x = dense(i, x)
        return x

    return params, Masked(degrees, formula, keywords={"context", *(("rng", "train") if dropout else ())}, **options)


def degrees_of(
    name: str, d: int, outputs: int, hidden: Sequence[int], context_dim: int, order: Sequence[int] | None
) -> list[np.ndarray]:
    """Degrees of the inputs, the hidden layers and the outputs: how many inputs, in their order, a unit may depend on.

    A unit sees the units before it with no larger degree. The degree of an input is its place plus 1, of an output its place.
    """
    if not isinstance(d, int) or not isinstance(outputs, int) or not isinstance(context_dim, int):
        raise FlowsError(f"{name}: input_dim is {d}, output_dim {outputs}, context_dim {context_dim}; expected whole numbers")
    if d < 1 or outputs % d:
        remedy = "a context alone needs no masks: use MLP or Residual" if d == 0 else f"expected a multiple of input_dim={d}"
        raise FlowsError(f"{name}: input_dim is {d} and output_dim {outputs}; {remedy}")
    _spend_on_masks([d + context_dim, *hidden, outputs])
    order = tuple(range(d)) if order is None else order
    if not isinstance(order, tuple) or set(order) != set(range(d)) or len(order) != d:
        raise FlowsError(f"{name}: order is {order!r:.60}; expected the features 0 to {d - 1}, each once")
    place = np.argsort(order)
    between = _hidden_degrees(d, hidden, context_dim)
    return [np.concatenate([place + 1, np.zeros(context_dim, int)]), *between, np.tile(place, outputs // d)]


def degrees_of_several(inputs: np.ndarray, outputs: np.ndarray, hidden: Sequence[int], context_dim: int) -> list[np.ndarray]:
    """Degrees as of `degrees_of`, for features in the order 0, 1, ... with any number of inputs and outputs: `inputs` and
    `outputs` hold the feature of each."""
    _spend_on_masks([len(inputs) + context_dim, *hidden, len(outputs)])
    between = _hidden_degrees(int(outputs.max()) + 1, hidden, context_dim)
    return [np.concatenate([inputs + 1, np.zeros(context_dim, int)]), *between, outputs]


def _hidden_degrees(d: int, hidden: Sequence[int], context_dim: int) -> list[np.ndarray]:
    lowest = 0 if context_dim else min(1, d - 1)  # a unit of degree 0 sees the context alone
    return [lowest + np.arange(units) % (d - lowest) for units in hidden]


def _spend_on_masks(widths: Sequence[int]) -> None:
    spend(size=8 * sum(widths) + 4 * sum(a * b for a, b in pairwise(widths)))  # degrees, and masks


class Masked(Leading):
    """A masked network by its formula: `formula(dense, units, x, rng, train)`, written once for both ways to run it.

    `dense(i, h)` is dense layer i, from units of `degrees[i]` to units of `degrees[i + 1]`; the rest of the formula is
    elementwise. `units` is the result of `per_unit(params, context)`: a pytree of arrays (units, batch or 1) that are added to
    hidden units, or multiplied with them; all of these then have `degrees[1]`. `layers(params)` are the dense layers.

    A feature may have several inputs, and any number of outputs, at any places. Features are then known in the order 0, 1, ...
    (`as_they_come`), and inputs of the context, of degree 0, are the last.
    """

    sees_all = False

    def __init__(
        self,
        degrees: list[np.ndarray],
        formula: Callable,
        layers: Callable = lambda params: params,
        per_unit: Callable = lambda params, context: (),
        keywords: Iterable[str] = ("context",),
        as_they_come: bool = False,
    ):
        self.degrees, self.formula, self.layers, self.per_unit = degrees, formula, layers, per_unit
        self.as_they_come = as_they_come
        self.masks = [(a[:, None] <= b).astype(np.float32) for a, b in pairwise(degrees)]
        super().__init__(naming(partial(self.whole), keywords))

    @property
    def order(self) -> np.ndarray:
        """The features in the order in which they can be known."""
        d = self.degrees[-1].max() + 1
        return np.arange(d) if self.as_they_come else np.argsort(self.degrees[-1][:d])

    def weights(self, params: Any) -> list[tuple[Array, Array]]:
        layers = zip(self.layers(params), self.masks, strict=True)
        return [(layer["w"] * mask.astype(layer["w"].dtype), layer["b"]) for layer, mask in layers]

    def dense(self, params: Any) -> Callable:
        weights = self.weights(params)
        return lambda i, h: affine(*weights[i], h)

    def whole(self, params: Any, x: Array, context: Array | None = None, rng: Any = None, train: bool = False) -> Array:
        """(input_dim, *batch) -> (output_dim, *batch), all at once."""
        inputs = x if context is None else jnp.concatenate([x, context])
        return self.formula(self.dense(params), self.per_unit(params, context), inputs, rng, train)

    def solve(self, params: Any, context: Array | None, y: Any, find: Callable, shown: Callable = lambda x: x) -> Any:
        """x (d, batch) and others, such that x_i, others_i = find(i, theta_i, y_i), with theta_i (num_params, 1, batch) the
        outputs for feature i of the whole network at shown(x). y is (d, batch), or a tuple of such arrays, and so are others.
        If a feature has several inputs, shown(x_i) are all of them, (inputs, batch). If features have different numbers of
        inputs or outputs, all get the largest number: surplus inputs have to be 0, and surplus outputs are 0.

        Each hidden unit is computed once, in the step in which the last of its inputs becomes known: about the work of one
        whole pass, instead of d passes. On a CPU the batch runs in pieces that fit the cache.
        """
        weights = self.weights(params)
        rows = sum(len(w) for w, _ in weights)
        most = min(512, max(64, 1 << (CACHE // rows).bit_length() - 1))
        d, batch = jax.tree.leaves(y)[0].shape

        def at_once(y: Any, context: Array | None) -> Any:
            return self._solve(params, weights, y, context, find, shown)

        def pieces(y: Any, context: Array | None) -> Any:
            count = batch // most
            size = -(-batch // count // 16) * 16  # whole registers

            def cut(a: Array) -> Array:
                padded = jnp.pad(a, ((0, 0), (0, count * size - batch)))
                return padded.reshape(a.shape[0], count, size).swapaxes(0, 1)

            # Rematerialised, so that a gradient stores the steps of one piece at a time.
            run = jax.checkpoint(at_once)
            results = lax.map(lambda piece: run(*piece), jax.tree.map(cut, (y, context)))
            return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(d, count * size)[:, :batch], results)

        with iteration(None):
            if not isinstance(batch, int) or batch < 2 * most:  # a symbol of `jax.export` is not an int
                return at_once(y, context)
            return lax.platform_dependent(y, context, cpu=pieces, default=at_once)

    def _solve(self, params: Any, weights: list, y: Any, context: Array | None, find: Callable, shown: Callable) -> Any:
        first, order = jax.tree.leaves(y)[0], self.order
        d, count = len(first), int((self.degrees[0] > 0).sum())  # of features, and of their inputs
        inputs, *others = self.degrees
        packed = [_Packed(degrees, d) for degrees in (inputs[:count], *others)]
        if context is not None:  # its part of the first layer is known from the start
            weights = [(weights[0][0], affine(weights[0][0][count:], weights[0][1], context)), *weights[1:]]
        rows = [_take(w[: len(of.degrees)], of.units, 0) for (w, _), of in zip(weights, packed, strict=False)]
        biases = [b.reshape(len(b), -1) for _, b in weights]
        per_unit = self.per_unit(params, context)

        def step(state: tuple, at: tuple) -> tuple:
            (known, last), (starts, feature, columns, biases, units, y_i) = state, at
            known = list(known)

            def dense(k: int, h: Array) -> Array:
                known[k] = lax.dynamic_update_slice_in_dim(known[k], h, starts[k], 0)
                return product(columns[k], known[k]) + biases[k]

            theta = self.formula(dense, units, shown(last)[: widths[0]], None, False)
            x_i, others = find(feature, theta[:, None], jax.tree.map(lambda a: a[None], y_i))
            return (tuple(known), x_i), jax.tree.map(lambda a: a[0], (x_i, others))

        # In a segment, products go over the units that are known by its end, not over all, and are as wide as its widest step.
        even = SEGMENTS if d >= SEGMENTS and sum(w.size for w, _ in weights) > HEAVY else 1
        edges = {*np.linspace(0, d, even + 1).round().astype(int).tolist(), *_cut(packed[0].counts + packed[-1].counts)}
        state, results = ((first[:0],) * len(rows), jnp.zeros_like(first[:1])), list[Any]()
        for start, end in pairwise(sorted(edges)):
            steps = slice(start, end)
            blocks = [of.blocks(steps) for of in packed]
            widths = [block.shape[1] for block in blocks]
            known = tuple(jnp.pad(h, ((0, of.known_by(end) - len(h)), (0, 0))) for h, of in zip(state[0], packed, strict=False))
            columns = [_take(w[: len(h)], to, 1).swapaxes(0, 1) for w, h, to in zip(rows, known, blocks[1:], strict=True)]
            offsets = [_take(b, to, 0) for b, to in zip(biases, blocks[1:], strict=True)]
            units = jax.tree.map(lambda a, to=blocks[1]: _take(a, to, 0), per_unit)
            starts, feature = [jnp.asarray(of.starts[steps]) for of in packed[:-1]], order[steps]
            everything = (starts, jnp.asarray(feature), columns, offsets, units, jax.tree.map(lambda a, at=feature: a[at], y))
            part: Any
            state, part = lax.scan(step, (known, state[1]), everything)
            results.append(part)
        return jax.tree.map(lambda *parts: jnp.concatenate(parts)[np.argsort(order)], *results)


class _Packed:
    """Units sorted by degree, 0 .. d - 1, the step that computes them; units that no step reads are left out.

    A step writes as many units as the largest step of its segment. The surplus is overwritten by later steps before any of
    their units is read.
    """

    def __init__(self, degrees: np.ndarray, d: int):
        self.degrees, self.counts = degrees, np.bincount(degrees, minlength=d)[:d]
        self.starts = np.cumsum(self.counts) - self.counts
        self.width = max(1, int(self.counts.max()))
        order = np.argsort(degrees, kind="stable")[: self.counts.sum()]
        self.units = np.append(order, [len(degrees)] * self.width)  # filled up with an index one past the last

    def known_by(self, end: int) -> int:
        """Rows for the units of the steps before `end`, and for the surplus of the last of them."""
        return int(self.starts[end - 1]) + self.width

    def blocks(self, steps: slice) -> np.ndarray:
        """The units of each step, filled up, (steps, width)."""
        counts = self.counts[steps, None]
        places = np.arange(max(1, counts.max()))[None]
        return np.where(places < counts, self.units[self.starts[steps, None] + places], len(self.degrees))


def _cut(widths: np.ndarray) -> list[int]:
    """Edges 0, ..., len(widths) of segments of steps of these widths, of least cost. A segment costs its length times its
    largest width, and CUT of all widths."""
    best, begins = np.zeros(len(widths) + 1), np.zeros(len(widths) + 1, int)
    for end in range(1, len(widths) + 1):
        widest = np.maximum.accumulate(widths[:end][::-1])[::-1]  # from each start
        cost = best[:end] + np.arange(end, 0, -1) * widest + CUT * widths.sum()
        begins[end] = cost.argmin()
        best[end] = cost.min()
    edges = [len(widths)]
    while edges[-1]:
        edges.append(int(begins[edges[-1]]))
    return edges


def _take(a: Array, units: np.ndarray, axis: int) -> Array:
    """`a` with its axis of units in this order; the unit one past the last is 0."""
    padded = jnp.pad(a, [(0, int(i == axis)) for i in range(a.ndim)])
    return jnp.take(padded, units, axis=axis)
