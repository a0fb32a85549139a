"""One model of every column given any other columns: densities and draws of any of them. Family: Any columns given any."""

from typing import Any

import jax
import jax.numpy as jnp

from flows.conditionals import Kind, Number, check_kind
from flows.conditionals.layout import Layout
from flows.conditionals.roles import ABSENT, GIVEN
from flows.conditioners.dense import check_dropout, need_rng
from flows.core import (
    FlowsError,
    Region,
    Rounding,
    Shape,
    Support,
    Traits,
    as_context,
    check_widths,
    distribution,
    in_pieces,
    positive_int,
)


def _support(columns: tuple[Kind, ...], **settings: Any) -> Support:
    def region(event: Shape) -> Region:
        return layout_of(columns, **settings, event=event).region()

    return Support(region, region)


def _traits(columns: tuple[Kind, ...], **settings: Any) -> Traits:
    steps = [column.step for column in columns]
    return Traits(prepares=True, roles=True, joins=True, rounding=Rounding(steps, None) if any(steps) else None)


@distribution(batched=True, support=_support, traits=_traits)
def AnySubset(*columns: Kind, hidden: tuple[int, ...] = (128, 128), num_bins: int = 16, dropout: float = 0.0):
    """Every column given any other columns: log p(x_A | x_B) for any sets of columns A and B, in nats.

    One network sees the values that are known, and which they are, and makes the distribution of each other column. A joint
    density is the chain rule in the order of the columns, log p(x_A | x_B) = sum_i log p(x_i | x_B, x_j for j < i in A).

    Without a context all columns are asked. With `context_dim=(2, d)`, context[0] has the values that are given, and context[1]
    the role of each column: 0 asked, 1 given, 2 absent. `log_pdf` reads the asked entries of x and no others; `sample` returns
    given values to the bit, and NaN for absent ones. Params are the same with and without a context. A row that asks nothing
    has log p = 0; a row with another role, or whose given values are impossible, has NaN.

    With `train=True` and `rng`, `log_pdf` is an estimate by one pass: of n asked columns t are given too, at random, t uniform
    on 0 to n - 1, and n / (n - t) times the sum of the others is unbiased for the mean over all orders of the columns. A step
    asks one of many questions, so that `fit` takes 10,000 steps at least.

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
    columns = tuple(check_kind(column, f"AnySubset: column {i}") for i, column in enumerate(columns))
    hidden, dropout = check_widths(hidden, "AnySubset: hidden"), check_dropout(dropout, "AnySubset")
    num_bins = positive_int(num_bins, "AnySubset: num_bins", most=1000)
    if len(set(hidden)) != 1:
        raise FlowsError(f"AnySubset: hidden is {hidden}; expected one width for each block, all equal, such as (128, 128)")

    def init_fun(rng, shape, context_dim=0, init_inputs=None, init_context=None):
        layout = layout_of(columns, hidden, num_bins, dropout, shape)
        if as_context(context_dim) not in (None, (2, layout.d)):
            raise FlowsError(
                f"AnySubset: context_dim is {context_dim}; expected {(2, layout.d)}: given values, and the role of each column"
            )
        x = jnp.zeros((layout.d, 0)) if init_inputs is None else init_inputs.T
        there = jnp.ones(x.shape, bool)
        if init_inputs is not None and init_context is not None:
            values, role = init_context[:, 0].T, init_context[:, 1].T
            x, there = jnp.where(role == GIVEN, values, x), role != ABSENT
        event = (sum(layout.widths) + layout.width,)  # numbers of a row

        def log_pdf(params, x, context=None, rng=None, train=False):
            if train and rng is not None:
                return layout.one_pass(params, rng, *layout.roles(params, x, context))
            if train and dropout:
                need_rng(rng, "AnySubset")

            def chain_rule(params, x, context):
                return layout.chain_rule(params, *layout.roles(params, x, context))

            return in_pieces(chain_rule, params, x, context, event=event)

        def sample(rng, params, num_samples, context=None):
            u = jax.random.uniform(rng, (num_samples, layout.d), params["layers"][0]["b"].dtype)
            return in_pieces(layout.draw, params, u, context, event=event)

        return layout.init(rng, x, there), log_pdf, sample

    return init_fun


def layout_of(columns: tuple[Kind, ...], hidden: tuple[int, ...], num_bins: int, dropout: float, event: Shape) -> Layout:
    """Return the layout of an `AnySubset` at an event."""
    if len(event) != 1:
        raise FlowsError(f"AnySubset: the event is {event}; expected a vector")
    columns = columns or (Number(),) * event[0]
    if len(columns) != event[0]:
        raise FlowsError(f"AnySubset: the event is {event}; expected ({len(columns)},), as {len(columns)} columns are given")
    return Layout(columns, hidden, num_bins, dropout)
