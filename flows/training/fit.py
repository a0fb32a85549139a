"""`flows.fit`: the way from raw data to a result. `read`, `check` and `prepare` handle the rows; `fit_prepared` trains and
makes the result, which averages several models where `check` chooses folds. `flows.fit_ensemble` is a fit of members.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, Unpack, cast

import optax

from flows.core import Array, DistributionLike, as_key, explained_call
from flows.results.ensemble import EnsembleResult
from flows.results.result import FitResult
from flows.training.data.continued import Before, check_result, prepare_again
from flows.training.data.facts import check
from flows.training.data.prepare import prepare
from flows.training.data.read import read
from flows.training.devices import devices_of
from flows.training.fitting import fit_prepared
from flows.training.model_view import ModelView, warn_of_one_column
from flows.training.options import EMA, LEARNING_RATE, Options, check_distribution

F = TypeVar("F", bound=Callable)


@explained_call("flows.fit(0, flow, data)")
def fit(
    rng: Any,
    init_fun: DistributionLike,
    data: Any,
    *,
    context: Any = None,
    weights: Any = None,
    objective: Callable | None = None,
    validation: Any = None,
    folds: int | None = None,
    groups: Any = None,
    order: Any = None,
    members: int | None = None,
    batch_size: int | None = None,
    max_epochs: int | None = None,
    steps_per_epoch: int | None = None,
    max_minutes: float | None = None,
    patience: int | None = None,
    learning_rate: float = LEARNING_RATE,
    weight_decay: float = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    standardize: bool | str = True,
    standardize_context: bool = True,
    support: Any = None,
    as_is: Any = (),
    dequantize: Any = None,
    ema: float | None = EMA,
    accumulate: int = 1,
    matmul_dtype: str | None = None,
    remat: bool = False,
    checkpoint: Any = None,
    checkpoint_every: float = 10.0,
    callbacks: Any = (),
    mesh: Any = None,
    rows: str = "copied",
    verbose: int = 1,
) -> FitResult:
    """Fit a distribution to data by maximum likelihood, and return the params that were best on held-out rows.

    Minimises -mean(log_pdf(params, x)). Each epoch shuffles the training rows and runs, with validation, as one compiled call.
    A second fit of an equal model to the same number of rows compiles nothing. A step that is not finite is skipped. An epoch
    that diverges is undone, and the learning rate lowered. Ctrl-C ends the fit after its epoch, with the best params so far.
    The data are checked before the first step: columns without a density are refused, unusual columns are warned of
    (`flows.training.DataWarning`). The guide, docs/guide/training.md, has details of each argument.

    Args:
        rng: key or seed, for the split, the init and the batches.
        init_fun: a distribution, such as `flows.Flow(flows.NSF())`; or the result of a fit, also from a file, which is then
            fitted further. Its layers that prepare rows stay as they are, so `standardize`, `standardize_context`, `support`,
            `as_is`, `dequantize`, `folds` and `members` are left out. It begins at the params of the result, which come back
            if no epoch is better. The same rng and rows hold out the same rows, also with more rows behind them; with another
            rng or order, and in a memory map with more rows, rows that it was trained on are held out, and its score is too
            good: then give `validation`.
        data: (rows, *event), an array, a frame (of pandas, polars, ...), or a memory map; or an iterable of arrays or of pairs
            (rows, context), with steps_per_epoch and validation rows.
        context: (rows, *context), for a conditional model.
        weights: (rows,), 0 or more: how much each row counts, up to a factor.
        objective: a function to minimise instead, such as `flows.objectives.flow_matching`:
            `objective(params, distribution, x, *, context, weights, rng, train) -> scalar`.
        validation: the share of rows held out for early stopping, in (0, 1), by default a tenth; or rows to validate on, a
            pair (data, context) for a conditional model.
        folds: the number of models to average (`EnsembleResult`), each with another part of the rows held out; by default 5
            for flows of more trained numbers than rows, below 2,000 rows, without `validation`, and otherwise 1.
        groups: (rows,), equal for rows to hold out together, such as the visits of a patient; or the name of a column.
        order: (rows,), numbers or dates, of which the last are held out; or the name of a column. A column that is named in
            groups or order is not modelled.
        members: the number of models to fit to the same rows instead, as `flows.fit_ensemble` does.
        batch_size: rows in a step, at most all training rows; by default 256, or an eighth of the training rows if that is
            less, but at least 8.
        max_epochs: passes over the training rows; by default 100, or as many as 3,000 steps take.
        steps_per_epoch: steps before each validation; by default, and at most, one pass over the rows.
        max_minutes: time limit; the fit stops after the epoch in which it is over.
        patience: epochs without a better validation loss after which the fit stops; by default a tenth of max_epochs, at
            least 10.
        learning_rate: the peak rate of the default optimizer, Adam.
        weight_decay: the default optimizer shrinks params in each step by this share of them, times the learning rate.
        optimizer: any optax optimizer instead.
        standardize: True to scale columns, transform heavy tails, whiten columns that depend almost linearly on others, and
            start at the closed-form Gaussian, or angles at their von Mises; "columns" to scale only; "whiten" to whiten all
            columns; False for none.
        standardize_context: scale each column of the context by its mean and standard deviation (`StandardizedContext`).
        support: bounds of the data, (low, high), each a number or one for each column, infinite where a side is open; or a
            list of such a pair for each column, or a dict {column: (low, high)}. The model is fitted behind `Unconstrain`.
        as_is: columns of data, by name or number, that are neither standardised nor checked.
        dequantize: the step of values that were rounded or counted, one for each column (0: continuous), a dict {column: step},
            or True to find the steps. The fitted model adds noise of this width (`Dequantize`).
        ema: the decay in each step of the moving average of params, which is validated and returned; None for no average.
        accumulate: the number of parts of a batch whose gradients are computed one after the other, which saves memory.
        matmul_dtype: the dtype of the networks' matrix products and convolutions in training, "bfloat16" or "float16".
        remat: keep only the inputs of each layer for the gradient, and compute the rest again: less memory, more time.
        checkpoint: a folder in which the training is saved. The same call in a new process continues from there, and ends
            with the same params, bit for bit.
        checkpoint_every: seconds between two saves, at the end of an epoch.
        callbacks: functions of a `flows.training.Epoch`, such as `TensorBoard(folder)`; the fit ends if one returns True.
        mesh: devices over which each batch, or members or folds, are spread: "all" for every device of every process, or a
            `jax.sharding.Mesh` of one axis.
        rows: over a mesh, "copied" to each device, or "split": each device has a share, and a batch has equal parts of all.
        verbose: 1 for a bar with the losses in nats, the best epoch and the time that it takes at most; 0 for none.

    Returns:
        A `FitResult`: unpacks as `params, log_pdf, sample`, and has `.init_fun`, `.history` and `.save(path)`.

    Errors:
        TypeError: `init_fun` is not a distribution; an objective cannot be called as above, or does not name the context or
            weights that are given; complex or object data; an unknown optimizer; a context that the model does not take.
        FlowsError: NaN or inf in the data, a value that is not a code in a column of codes, a column that is constant or a
            copy, too few rows, wrong shapes, settings outside their range, a checkpoint that is damaged or of another fit.
            FitError: no loss, or no score of held-out rows, is ever finite, or the fit diverges at any rate; it carries the
            best params, the history and the cause.

    Example:
        >>> import flows, jax
        >>> data = 100.0 + 5.0 * jax.random.normal(jax.random.key(0), (200, 2))
        >>> params, log_pdf, sample = flows.fit(0, flows.Flow(flows.ActNorm()), data, max_epochs=3, verbose=0)
        >>> sample(1, params, 4).shape
        (4, 2)
    """
    arguments = locals() | {"folds": folds if members is None else 1}
    if members is not None and folds not in (None, 1):
        raise TypeError(f"fit: members is {members} and folds is {folds}; expected one of them, as each fold has separate rows")
    with devices_of(mesh, "fit"):
        options = Options.of(arguments)
        key = as_key(rng)
        if isinstance(init_fun, FitResult):
            return _gone_on(init_fun, data, options, key)
        check_distribution(init_fun)
        split = read(data, options, key)
        view = ModelView(init_fun, split.whole.event, split.whole.context_event, options.standardize)
        options = options.for_model(view.init_fun)
        facts = check(view, split, options, key)
        warn_of_one_column(view, "fit")
        prepared = prepare(split, facts, options, key)
        return fit_prepared(prepared, options, key)


def _gone_on(result: FitResult, data: Any, options: Options, key: Array) -> FitResult:
    """Fit a result further: its model, from its params, behind its layers."""
    check_result(result, options)
    split = read(data, options, key, result)
    before = Before.of(result, split.whole.dtype)
    options = before.options(options).for_model(result.init_fun)
    facts = check(before.view(split), split, options, key)
    return fit_prepared(prepare_again(split, facts, before, options, key), options, key)


class TableKeywords(TypedDict, total=False):
    """Keywords that `flows.tables.fit` passes on."""

    batch_size: int | None
    max_epochs: int | None
    max_minutes: float | None
    patience: int | None
    learning_rate: float
    weight_decay: float
    mesh: Any
    verbose: int
    steps_per_epoch: int | None


class SelectKeywords(TableKeywords, total=False):
    """Keywords that `flows.select` passes on."""

    context: Any
    weights: Any
    groups: Any
    order: Any
    standardize: bool | str
    standardize_context: bool
    support: Any
    as_is: Any
    dequantize: Any
    rows: str


class FitKeywords(SelectKeywords, total=False):
    """Keywords of one fit, without `folds` and `members`."""

    objective: Callable | None
    validation: Any
    optimizer: optax.GradientTransformation | None
    ema: float | None
    accumulate: int
    matmul_dtype: str | None
    remat: bool
    checkpoint: Any
    checkpoint_every: float
    callbacks: Any


def hands_on(keywords: type) -> Callable[[F], F]:
    """Show these keywords of `fit`, with their types and defaults, in place of the `**keywords` of a function. Keywords that
    the function names itself stay as they are."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        known = {name: parameter for name, parameter in signature.parameters.items() if name != "keywords"}
        options = inspect.signature(fit).parameters.items()
        more = {name: option for name, option in options if name in keywords.__annotations__}
        function.__signature__ = signature.replace(parameters=list((known | more | known).values()))  # type: ignore[attr-defined]
        return function

    return decorate


@explained_call("flows.fit_ensemble(0, flow, data, members=8)")
@hands_on(FitKeywords)
def fit_ensemble(
    rng: Any, init_fun: DistributionLike, data: Any, *, members: int = 8, **keywords: Unpack[FitKeywords]
) -> EnsembleResult:
    """Fit several models to the same data at once, each with a separate init and separate batches.

    log p(x) = logsumexp_m log p_m(x) - log members. All members train in one compiled program on the same training rows,
    and each keeps the params that were best on the same held-out rows. The fit ends when no member has become better for
    `patience` epochs. The spread of `log_pdfs` over members is large where the data say little.

    Args:
        members: the number of models.
        rng, init_fun, data and all others: as in `flows.fit`.

    Returns:
        An `EnsembleResult`, which unpacks as `params, log_pdf, sample`, and has `.log_pdfs(params, inputs)`.

    Errors:
        The errors of `flows.fit`; an error in one member names the member.

    Source:
        Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
        2017, arXiv:1612.01474.

    Example:
        >>> import flows, jax
        >>> data = jax.random.normal(jax.random.key(0), (200, 2))
        >>> result = flows.fit_ensemble(0, flows.Flow(flows.ActNorm()), data, members=3, max_epochs=2, verbose=0)
        >>> result.log_pdfs(result.params, data[:5]).shape
        (3, 5)
    """
    return cast(EnsembleResult, fit(rng, init_fun, data, members=members, **keywords))
