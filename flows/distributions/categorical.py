"""A distribution of codes of categories, each column given the columns before it. Family: Codes, and blocks of columns."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditioners.dense import check_dropout
from flows.conditioners.masked import degrees_of_several, masked_mlp
from flows.core import (
    Array,
    FlowsError,
    Region,
    Support,
    as_context,
    check_widths,
    distribution,
    in_pieces,
    naming,
    one_hot_codes,
    positive_int,
)

MOST_CLASSES = 2**24  # whole numbers that float32 can tell apart
LAST_SCALE = 0.01  # of the last layer's weights at the start, as of other masked networks


def _code_support(classes: Sequence[int], **settings: Any) -> Support:
    counts = np.asarray(classes)
    region = Region(0, counts - 1, classes=counts)
    return Support(region, region)


@distribution(batched=True, support=_code_support)
def Categorical(*classes: int, hidden: tuple[int, ...] = (64, 64), dropout: float = 0.0):
    """Codes of categories: log P(c) = sum_i log softmax(l_i(c_<i, context))[c_i], in nats, l made by a masked network.

    Column i holds a code, a whole number from 0 to classes[i] - 1, as a float. The network sees the columns before it one-hot,
    and the context as it is. The sum of P over all codes is 1 for any params. With `init_inputs` each column starts near its
    frequencies, softmax(log(count + 1)), whatever the columns before it hold; without, near equal probabilities. A value that
    is not a code has log P = -inf (0.5, -1, an infinite number), and NaN stays NaN.

    Args:
        classes: how many categories each column has; the event has one entry for each column.
        hidden: widths of the network; () makes a linear one.
        dropout: the share of hidden units dropped with `train=True`, which needs `rng`; in [0, 1).

    Params:
        A tuple of `{"w": (inputs, outputs), "b": (outputs,)}`. The inputs of the first layer are the classes of all columns
        but the last, column after column, then the context; the outputs of the last layer are the logits of all columns. Masked
        weights are multiplied by 0 at use. `{"theta": (classes,)}` for one column without a context, which needs no network.

    Cost:
        A density is one pass of the network, in pieces that fit the cache; draws take about two passes, not one a column.

    Errors:
        FlowsError: no classes, or one that is not a whole number above 0; a width or dropout outside its range; an event that
            is not a vector with one entry for each of them; a context of several axes; dropout with `train=True` and no `rng`.

    Source:
        Germain, Gregor, Murray and Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", 2015, arXiv:1502.03509,
        for codes of more than two categories; Uria, Cote, Gregor, Murray and Larochelle, "Neural Autoregressive Distribution
        Estimation", 2016, arXiv:1605.02226.

    Example:
        >>> import flows, jax.numpy as jnp
        >>> params, log_pdf, sample = flows.Categorical(2, 3)(0, 2, init_inputs=jnp.array([[0.0, 2.0], [0.0, 1.0], [1.0, 2.0]]))
        >>> jnp.exp(log_pdf(params, jnp.array([[0.0, 2.0], [0.0, 3.0]]))).round(1).tolist()          # 3 / 5 * 3 / 6, and none
        [0.3..., 0.0]
        >>> sample(1, params, 4).shape
        (4, 2)
    """
    if not classes:
        raise FlowsError("Categorical: no classes were given; expected how many categories each column has, Categorical(3, 2)")
    classes = tuple(positive_int(number, "Categorical: a number of classes", most=MOST_CLASSES) for number in classes)
    hidden, dropout = check_widths(hidden, "Categorical: hidden"), check_dropout(dropout, "Categorical")
    d, total = len(classes), sum(classes)
    layout = _Layout(classes)

    def init_fun(rng, shape, context_dim=0, init_inputs=None):
        if shape != (d,):
            raise FlowsError(f"Categorical: the event is {shape}; expected ({d},), as classes are given for {d} columns")
        context = as_context(context_dim)
        if context is not None and len(context) != 1:
            raise FlowsError(f"Categorical: context_dim is {context}; expected a whole number: flatten the context")
        start = jnp.zeros(total) if init_inputs is None else _start(init_inputs, classes)
        if d == 1 and context is None:
            return {"theta": start}, log_pdf_alone, sample_alone

        degrees = degrees_of_several(layout.inputs, layout.outputs, hidden, 0 if context is None else context[0])
        params, network = masked_mlp(
            "Categorical", rng, degrees, jax.nn.relu, LAST_SCALE, dropout, layers=layout.layers, as_they_come=True
        )

        def log_pdf(params, x, context=None, rng=None, train=False):
            keywords = {"rng": rng, "train": True} if train and dropout else {}

            def rows_log_pdf(params, x, context):
                x = x.T
                c, coded = _codes(x, classes)
                logits = network.leading(params, layout.one_hot(c), None if context is None else context.T, **keywords)
                return _scored(x, coded, layout.log_masses(logits, c))

            if keywords:
                return rows_log_pdf(params, x, context)  # pieces would all drop the same units
            return in_pieces(rows_log_pdf, params, x, context, event=(total,))

        def sample(rng, params, num_samples, context=None):
            noise = jax.random.uniform(rng, (d, num_samples), params[0]["b"].dtype)
            find = partial(_find, classes)
            return network.solve(params, None if context is None else context.T, noise, find, layout.one_hot_alone)[0].T

        params = (*params[:-1], {**params[-1], "b": start})
        return params, naming(log_pdf, {"context", *(("rng", "train") if dropout else ())}), sample

    def log_pdf_alone(params, x):
        x = x.T
        c, coded = _codes(x, classes)
        return _scored(x, coded, jax.nn.log_softmax(params["theta"])[c[0].astype(jnp.int32)])

    def sample_alone(rng, params, num_samples):
        up_to = jnp.cumsum(jax.nn.softmax(params["theta"]))
        noise = jax.random.uniform(rng, (num_samples, 1), up_to.dtype)
        below = jnp.searchsorted(up_to, noise * up_to[-1], side="right")
        return jnp.minimum(below, total - 1).astype(up_to.dtype)

    return init_fun


class _Layout:
    """The order of the network's inputs and outputs: columns with the same number of classes stand side by side, so that they
    are computed together, and compile time grows only with the different numbers of classes. Params have the columns' order."""

    def __init__(self, classes: tuple[int, ...]):
        counts = np.asarray(classes)
        self.order = np.argsort(counts, kind="stable").astype(np.int32)
        self.earlier = self.order[self.order != len(classes) - 1]  # no other column depends on the last one
        self.classes, self.earlier_classes = counts[self.order].tolist(), counts[self.earlier].tolist()
        self.outputs, self.inputs = (np.repeat(columns, counts[columns]) for columns in (self.order, self.earlier))
        self.most_inputs = max(self.earlier_classes, default=1)

    def layers(self, params: Any) -> list[dict[str, Array]]:
        """Return the layers of the params, with the inputs of the first and the outputs of the last in this order."""
        layers = [dict(layer) for layer in params]
        inputs, outputs = (np.argsort(np.argsort(a, kind="stable")).astype(np.int32) for a in (self.inputs, self.outputs))
        context = np.arange(len(inputs), layers[0]["w"].shape[0], dtype=np.int32)
        layers[0]["w"] = layers[0]["w"][np.concatenate([inputs, context])]
        return [*layers[:-1], {"w": layers[-1]["w"][:, outputs], "b": layers[-1]["b"][outputs]}]

    def one_hot(self, c: Array) -> Array:
        return one_hot_codes(c[self.earlier], self.earlier_classes)

    def one_hot_alone(self, c: Array) -> Array:
        """Return the inputs of one column (1, batch), with the width of the widest column."""
        return one_hot_codes(c, [self.most_inputs])

    def log_masses(self, logits: Array, c: Array) -> Array:
        """sum_i log softmax(l_i)[c_i], (batch,), for logits (sum(classes), batch) in this order and codes c in their own."""
        log_p, column, place = jnp.zeros(c.shape[1], c.dtype), 0, 0
        for count, run in groupby(self.classes):
            n = len(list(run))
            run_logits = logits[place : place + n * count].reshape(n, count, c.shape[1])
            here = c[self.order[column : column + n], None] == jnp.arange(count, dtype=c.dtype)[None, :, None]
            log_p += (jnp.where(here, run_logits, 0).sum(1) - jax.nn.logsumexp(run_logits, axis=1)).sum(0)
            column, place = column + n, place + n * count
        return log_p


def _codes(x: Array, classes: Sequence[int]) -> tuple[Array, Array]:
    """Return the codes of columns x (d, batch), with 0 where x is not a code, and a mask of the entries that are codes."""
    coded = (x >= 0) & (x < jnp.asarray(classes, x.dtype)[:, None]) & (x == jnp.floor(x))
    return jnp.where(coded, x, 0), coded


def _scored(x: Array, coded: Array, log_p: Array) -> Array:
    """log_p of rows, (batch,), -inf where one of the entries x (d, batch) is not a code and NaN where one is NaN."""
    log_p = jnp.where(coded.all(0), log_p, log_p - jnp.inf)
    return jnp.where(jnp.isnan(x).any(0), jnp.nan, log_p)


def _find(classes: Sequence[int], column: Array, logits: Array, noise: Array) -> tuple[Array, tuple]:
    """Codes of a column, (1, batch), by uniform numbers: the first code whose cumulative mass is above that share of all mass.

    The logits are (width, 1, batch); rows beyond the classes of this column have no mass.
    """
    count = jnp.asarray(classes)[column]
    valid = (jnp.arange(logits.shape[0]) < count)[:, None, None]
    up_to = jnp.cumsum(jax.nn.softmax(jnp.where(valid, logits, -jnp.inf), axis=0), axis=0)
    below = (up_to <= (noise * up_to[-1])[None]).sum(0)
    return jnp.minimum(below, count - 1).astype(noise.dtype), ()


def _start(x: Array, classes: Sequence[int]) -> Array:
    """log(count + 1) of each code of each column, one column after the other; only values that are codes count."""
    counts, total = np.asarray(classes), sum(classes)
    c, coded = _codes(x.T, classes)
    places = jnp.where(coded, c.astype(jnp.int32) + jnp.asarray(np.cumsum(counts) - counts, jnp.int32)[:, None], total)
    return jnp.log(1 + jnp.zeros(total, x.dtype).at[places.ravel()].add(1, mode="drop"))
