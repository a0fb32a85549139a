"""`flows.fit`: the way from raw data to a result. `read`, `check` and `prepare` handle the rows; `fit_prepared` trains and
makes the result, which averages several models where `check` finds that folds pay.
"""

from collections.abc import Callable
from typing import Any

import optax

from flows.core import DistributionLike, as_key, explained_call, mesh_of_rows
from flows.results.result import FitResult
from flows.training.agreement import agreement
from flows.training.data.facts import check
from flows.training.data.prepare import prepare
from flows.training.data.read import read
from flows.training.fitting import fit_prepared
from flows.training.options import EMA, LEARNING_RATE, Options, check_distribution, optional


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

    Minimises -mean(log_pdf(params, x)). Each epoch shuffles the training rows and runs, with validation, as one compiled call;
    each leaves out a few other rows, which do not fill a last batch. Leaves under "fixed" never move; running statistics (batch
    norm) are measured anew on up to 10,000 training rows, fewer of images, before each validation. A second fit of an equal
    model to as many rows compiles nothing, whatever its learning_rate, max_epochs and patience.

    A step whose loss, gradient or update is not finite is not taken, and those after it are smaller. An epoch that diverges is
    undone and the learning rate falls to a tenth, up to 8 times; patience does not count it. A fit that fell apart, with both
    losses far above those of the best epoch when its patience is over, and the learning rate still more than half of its peak,
    goes back there in the same way, and on at a lower rate, with a warning. Ctrl-C ends the fit after the epoch, with the best
    params so far; a second Ctrl-C ends it at once.

    Where the loss on what is held out was still falling from half to three quarters of 40 epochs or more, by more than chance
    explains and two standard errors, and patience did not end the fit early, a warning says how many more may pay.

    The columns of a table are checked before the first step. Constant columns, copies of other columns and columns in which
    one value dwarfs all others are refused; rounded values, atoms, heavy tails, offsets that cost digits and columns that
    others tell to within their rounding are warned of (`flows.training.DataWarning`), with what to do; of images, channels that
    are constant, and rounded pixels. So are rows that are copies of others, which are trained on or held out together, as long
    as rows enough are left for both. Rows that are equal by chance, as values were rounded, are no copies.

    Args:
        rng: key or seed, for the split, the init and the batches.
        init_fun: a distribution, such as `flows.Flow(flows.NSF())`.
        data: (rows, *event), anything `np.asarray` takes, or a table of pandas or polars; it is put on the device whole. For
            rows that do not fit there, or into memory: a memory-mapped array (`np.load(path, mmap_mode="r")`), of which a
            thread reads blocks ahead of the steps, or an iterable of arrays, or of pairs (rows, context), of any lengths, with
            steps_per_epoch and validation rows. Both are looked at and standardised by up to 100,000 of their rows, of
            images by as many as hold 2^24 numbers.
        context: (rows, *context), for a conditional model.
        weights: (rows,), 0 or more: how much each row counts, in training, in the mean and standard deviation, and among the
            rows held out. Only their ratios matter. Rows to validate on that are given count equally.
        objective: what is minimised in place of minus the mean log-likelihood: a function of rows, `objective(params,
            distribution, x, *, context, weights, rng, train)`, as in `flows.objectives`, that returns a scalar, such as
            `flows.objectives.flow_matching`. It is handed those of the keywords that it names, the rows as the model itself has
            them (standardised), and the same rng in every validation. Losses are then its values, not nats, and no log-det is
            added to them.
        validation: the share of rows held out for early stopping, in (0, 1), by default a tenth; or rows to validate on, a
            pair (data, context) for a conditional model, and then all of `data` are trained on; rows that are among these are
            warned of.
        folds: fit so many models, each without another part of the rows, by which it is stopped, and return their average as
            an `EnsembleResult`: log p(x) = logsumexp_m log p_m(x) - log folds. By default 5 where fewer than 2,000 rows have to
            train a `Flow`, or blocks of features with one (`ChainRule`, `Joint`), of more numbers than these, and no
            `validation` was given: chance has too large a part in one fit to few rows. 1 for a single model.
        members: fit so many models instead, each from an init and with batches of its own, to the same rows, and return their
            average as an `EnsembleResult`, as `flows.fit_ensemble` does.
        batch_size: rows a step, all training rows where they are fewer; by default 256, or an eighth of the training rows if
            that is less, but 8 at least.
        max_epochs: passes over the training rows; by default 100, or as many as 3,000 steps take.
        steps_per_epoch: steps before each validation; by default one pass over the rows, and no more than that. Needed where
            data is an iterable.
        max_minutes: stop after the epoch in which they have gone, if max_epochs are not through.
        patience: stop after so many epochs without a better validation loss; by default 10, or a tenth of max_epochs if that
            is more.
        learning_rate: the highest rate of the default optimizer: Adam with gradients clipped at norm 5, whose rate warms up
            over the first twentieth of the steps and then falls to 0 along a cosine, at max_epochs.
        weight_decay: by which share of themselves, times the rate, the default optimizer shrinks params in each step.
        optimizer: any optax optimizer instead.
        standardize: True to fit `Flow(Standardize(), init_fun)`: mean and standard deviation of each column are measured on the
            training rows and kept inside the fitted model, whose log_pdf and samples are in the units of the data. A column
            that those before it tell to more than 96% (91% where there are 50 rows or more for each column) is freed of them by
            `Whiten`, unless its entropy is lower as it is (edges and spikes of its own). Columns that the model declares to be
            angles, unit vectors or codes stay as they are. The base of a flow, also of one of a block of features, where it is
            the standard `Normal()`, becomes one with a full covariance, which starts at that of the rows and trains, and with a
            context, or blocks before it, at the linear regression on these: the start is the closed-form Gaussian. Noise of
            flows of blocks (`Dequantize`) comes before. Correlations are shrunk by as much as
            cross-validation says, where rows are few, and more where these are not normal. Columns whose tails are so heavy
            that their Gaussian gains more than 0.2 nats by arcsinh go through `Arcsinh` first; after the columns that others
            tell were freed of these, where the Gaussian of all is better so by as much. What is no flow, such as a
            mixture, has all columns freed of those before them, as "whiten" asks for flows too; a mixture of diagonal Gaussians
            is left with its columns. "columns" for `Flow(Standardize(), init_fun)` alone, for images by their channels; False
            for neither. No column of vectors of more than 512 is freed of others.
        standardize_context: the same by mean and standard deviation for each column of the context (`StandardizedContext`).
        support: where the data live, (low, high), each a number or one for each column, infinite where a side is open; or a
            dict {column: (low, high)} by number or name. The model is fitted behind `Unconstrain`, so that no density and no
            sample lies outside. With `dequantize` the ends are moved out by half a step; otherwise a value at an end is
            refused.
        as_is: columns of data, by name or number, that are neither standardised nor judged by the checks.
        dequantize: for values that were rounded or counted: `Dequantize` noise inside the fitted model. Its step, one for each
            column (0: continuous), a dict {column: step} by number or name, or True for what shows in the data: the greatest
            common divisor of the distances of values on their decimal grid, or their smallest gap where no decimals hold them
            (thirds). log_pdf
            with `rng` is then a lower bound, of the mass of a cell divided by its width; without, the density at the recorded
            value, which is neither bound nor mass. Samples are rounded again. A column that is constant may stay; one that is
            not rounded to its step is refused, and one that the model dequantises itself is refused here and in `support`.
        ema: use an exponential moving average of the params with this decay a step for validation and for the result; at first
            it forgets faster. None for the params themselves.
        accumulate: compute the gradient of a batch in so many parts, one after the other, for the memory of one.
        matmul_dtype: the dtype of the networks' matrix products and convolutions in training, "bfloat16" or "float16"; params,
            transformers, log-dets and losses stay as they are, and so do validation and the fitted model.
        remat: keep only the inputs of each layer for the gradient, and compute the rest again: less memory, more time.
        checkpoint: a folder. The training is saved there in one file, which is replaced whole or not at all; the same call
            again, in a process of its own, goes on from it and ends with the same params, bit for bit. `patience` may be
            another then, and `optimizer`, and functions in the model, have to be the same: they are told by their names alone.
            The end is saved too: one more call returns it at once. An iterable starts anew in a new process, and so its rows
            may be others.
        checkpoint_every: seconds between two saves, at the end of an epoch.
        callbacks: functions called after each epoch with a `flows.training.Epoch`; the fit ends if one returns True. For
            TensorBoard: `flows.training.TensorBoard(folder)`.
        mesh: devices over which each batch is spread: "all" for every device of every process, or a `jax.sharding.Mesh` of one
            axis. Rows, params and state are copied to all, and losses are those of one device, to rounding. batch_size is a
            multiple of the devices. Members and folds are spread instead, where there are as many for each device.
        rows: over a mesh, "copied" to each device, or "split" where they are too many for one: each keeps its share, and a
            batch has equal parts of all.
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
    if members is not None and folds not in (None, 1):
        raise TypeError(
            f"fit: members is {members} and folds is {folds}; expected one of them, as folds have rows of their own"
        )
    with agreement(optional(mesh_of_rows)(mesh, "fit: mesh"), "fit"):
        options = Options(
            context=context,
            weights=weights,
            objective=objective,
            validation=validation,
            batch_size=batch_size,
            max_epochs=max_epochs,
            steps_per_epoch=steps_per_epoch,
            max_minutes=max_minutes,
            patience=patience,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            optimizer=optimizer,
            standardize=standardize,
            standardize_context=standardize_context,
            support=support,
            as_is=as_is,
            dequantize=dequantize,
            ema=ema,
            accumulate=accumulate,
            matmul_dtype=matmul_dtype,
            remat=remat,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            callbacks=callbacks,
            mesh=mesh,
            rows=rows,
            verbose=verbose,
            folds=folds if members is None else 1,
            members=members,
        )
        key = as_key(rng)
        check_distribution(init_fun, options.caller)
        split = read(data, options, key)
        facts = check(init_fun, split, options, key)
        return fit_prepared(prepare(split, facts, options, key), options, key)
