"""`flows.fit`: the way from raw data to a result. `read`, `check` and `prepare` handle the rows; `fit_prepared` trains and
makes the result, which averages several models where `check` finds that folds pay.
"""

from collections.abc import Callable
from typing import Any

import optax

from flows.core import DistributionLike, as_key, explained_call
from flows.results.result import FitResult
from flows.training.data.facts import check
from flows.training.data.prepare import prepare
from flows.training.data.read import read
from flows.training.devices import devices_of
from flows.training.fitting import fit_prepared
from flows.training.model_view import ModelView
from flows.training.options import EMA, LEARNING_RATE, Options, check_distribution


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
    A second fit of an equal model to as many rows compiles nothing. A step that is not finite is not taken, an epoch that
    diverges is undone and the rate lowered. Ctrl-C ends the fit after its epoch, with the best params so far. The columns of a
    table are checked before the first step: what no density can hold is refused, what is odd is warned of
    (`flows.training.DataWarning`). The guide, docs/guide/training.md, tells more of each argument.

    Args:
        rng: key or seed, for the split, the init and the batches.
        init_fun: a distribution, such as `flows.Flow(flows.NSF())`.
        data: (rows, *event), an array, a frame (of pandas, polars, ...), or a memory map; or an iterable of arrays or of pairs
            (rows, context), with steps_per_epoch and validation rows.
        context: (rows, *context), for a conditional model.
        weights: (rows,), 0 or more: how much each row counts, up to a factor; validation rows that are given count equally.
        objective: what is minimised instead, `objective(params, distribution, x, *, context, weights, rng, train) -> scalar`,
            of which it is handed the keywords that it names, as in `flows.objectives`.
        validation: the share of rows held out for early stopping, in (0, 1), by default a tenth; or rows to validate on, a
            pair (data, context) for a conditional model.
        folds: fit so many models, each without another part of the rows, and return their average as an `EnsembleResult`. By
            default 5 for flows of more trained numbers than rows, below 2,000 rows, without `validation`; 1 for one model.
        members: fit so many models to the same rows instead, as `flows.fit_ensemble` does.
        batch_size: rows a step, all training rows where they are fewer; by default 256, or an eighth of the training rows if
            that is less, but 8 at least.
        max_epochs: passes over the training rows; by default 100, or as many as 3,000 steps take.
        steps_per_epoch: steps before each validation; by default one pass over the rows, and no more than that.
        max_minutes: stop after the epoch in which they have gone, if max_epochs are not through.
        patience: stop after so many epochs without a better validation loss; by default a tenth of max_epochs, at least 10.
        learning_rate: the peak of the default optimizer: Adam with gradients clipped at norm 5, whose rate warms up over the
            first twentieth of the steps and then falls to 0 along a cosine, at max_epochs.
        weight_decay: by which share of themselves, times the rate, the default optimizer shrinks params in each step.
        optimizer: any optax optimizer instead.
        standardize: True to scale columns, free those of others that are nearly linear in them, take heavy tails through
            `Arcsinh`, and start at the closed-form Gaussian; "columns" to scale alone; "whiten" to free all; False for none.
        standardize_context: scale each column of the context by its mean and standard deviation (`StandardizedContext`).
        support: where the data live, (low, high), each a number or one for each column, infinite where a side is open; or a
            list of such a pair for each column, or a dict {column: (low, high)}. The model is fitted behind `Unconstrain`.
        as_is: columns of data, by name or number, that are neither standardised nor judged by the checks.
        dequantize: for values that were rounded or counted, `Dequantize` noise inside the fitted model: the step, one for each
            column (0: continuous), a dict {column: step} by number or name, or True for what shows in the data.
        ema: the decay a step of the moving average of params that is validated and returned; None for the params themselves.
        accumulate: compute the gradient of a batch in so many parts, one after the other, for the memory of one.
        matmul_dtype: the dtype of the networks' matrix products and convolutions in training, "bfloat16" or "float16".
        remat: keep only the inputs of each layer for the gradient, and compute the rest again: less memory, more time.
        checkpoint: a folder in which the training is saved; the same call again, in a process of its own, goes on from there
            and ends with the same params, bit for bit.
        checkpoint_every: seconds between two saves, at the end of an epoch.
        callbacks: functions of a `flows.training.Epoch`, such as `TensorBoard(folder)`; the fit ends if one returns True.
        mesh: devices over which each batch, or members or folds, are spread: "all" for every device of every process, or a
            `jax.sharding.Mesh` of one axis.
        rows: over a mesh, "copied" to each device, or "split": each keeps its share, and a batch has equal parts of all.
        verbose: 1 for a bar with the losses in nats, the best epoch and the time left; 0 for none.

    Returns:
        A `FitResult`: unpacks as `params, log_pdf, sample`, and has `.init_fun`, `.history` and `.save(path)`.

    Errors:
        TypeError: `init_fun` is no distribution; an objective that cannot be called so, or does not name the context or the
            weights given; complex or object data; an unknown optimizer; a context nothing takes.
        FlowsError: NaN or inf in the data, what is no code in a column of codes, a column that is constant or a copy, too few
            rows, wrong shapes, settings outside their range, a checkpoint that is damaged or of another fit. FitError: no loss,
            or none of what is held out, is ever finite, or the fit diverges at any rate; it carries the best params, the
            history and the cause.

    Example:
        >>> import flows, jax
        >>> data = 100.0 + 5.0 * jax.random.normal(jax.random.key(0), (200, 2))
        >>> params, log_pdf, sample = flows.fit(0, flows.Flow(flows.ActNorm()), data, max_epochs=3, verbose=0)
        >>> sample(1, params, 4).shape
        (4, 2)
    """
    given = locals() | {"folds": folds if members is None else 1}
    if members is not None and folds not in (None, 1):
        raise TypeError(
            f"fit: members is {members} and folds is {folds}; expected one of them, as folds have rows of their own"
        )
    with devices_of(mesh, "fit"):
        options = Options.of(given)
        key = as_key(rng)
        check_distribution(init_fun, options.caller)
        split = read(data, options, key)
        view = ModelView(init_fun, split.whole.event, split.whole.context_event, options.standardize)
        facts = check(view, split, options, key)
        return fit_prepared(prepare(split, facts, options, key), options, key)
