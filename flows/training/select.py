"""`flows.select`: which of several models fits the data best."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flows.core import FlowsError
from flows.core.contract import DistributionLike
from flows.core.inputs import as_key
from flows.results.result import OF_LABELS, FitResult
from flows.training.before import own_noise
from flows.training.candidates import suggested
from flows.training.comparison import SURE, Candidate, Comparison, SelectOptions, parts_of
from flows.training.data_checks import check_data
from flows.training.options import FEW, FOLDS, LEARNING_RATE
from flows.training.reading import read_arrays, unsplit

TINY = 1e-3  # nats
NO_FAULT = ("given up", "not fitted", "interrupted")


class Selection(NamedTuple):
    """Candidates, best first. Prints as a table; `.best` is the `FitResult` of the first.

    Attributes:
        candidates: each a `Candidate`.
        rows: the numbers of the rows that were scored.
        folds: how many times each model was fitted to a part of the rows; 1 where a share was held out from all fits.
    """

    candidates: tuple[Candidate, ...]
    rows: np.ndarray
    folds: int

    @property
    def best(self) -> FitResult:
        best = self.candidates[0].result
        if best is None:  # `select` raises before it comes to that
            raise FlowsError("select: no candidate was fitted")
        return best

    def __str__(self) -> str:
        width = max(len(each.name) for each in self.candidates)
        lines = [f"{'model':{width}}  {'log-likelihood':>18}  {'behind the best':>18}  {'params':>9}  {'seconds':>7}"]
        for each in self.candidates:
            if each.result is None:
                lines.append(f"{each.name:{width}}  {'' if each.failure.startswith(NO_FAULT) else 'failed: '}{each.failure}")
                continue
            nats, behind = f"{each.nats:.3f} +- {each.error:.3f}", f"{each.behind[0]:.3f} +- {each.behind[1]:.3f}"
            lines.append(f"{each.name:{width}}  {nats:>18}  {behind:>18}  {each.num_params:>9,}  {each.seconds:>7.1f}")
        others = [each for each in self.candidates[1:] if each.result is not None]
        equal = [each.name for each in others if each.behind[0] <= max(SURE * each.behind[1], TINY)]
        if equal:
            lines.append(f"The first is no better, within {SURE:g} standard errors, than {', '.join(equal)}")
        labels = {each.name: getattr(each.result.init_fun, "likelihood", "exact") for each in self.candidates if each.result}
        for label, text in OF_LABELS.items():
            if names := [name for name, own in labels.items() if own == label]:
                lines.append(f"Log-likelihood of {', '.join(names)}: {text}")
        return "\n".join(lines)


def select(
    rng: Any,
    candidates: Sequence[DistributionLike] | Mapping[str, DistributionLike] | None,
    data: Any,
    *,
    context: Any = None,
    weights: Any = None,
    validation: Any = 0.2,
    batch_size: int | None = None,
    max_epochs: int | None = None,
    max_minutes: float | None = None,
    total_minutes: float | None = None,
    patience: int | None = None,
    learning_rate: float = LEARNING_RATE,
    weight_decay: float = 0.0,
    standardize: bool | str = True,
    standardize_context: bool = True,
    support: Any = None,
    as_is: Any = (),
    dequantize: Any = None,
    verbose: int = 1,
) -> Selection:
    """Fit each of several models to the same rows and compare them on the same others.

    A model wins by the mean of its log_pdf over rows that it was not trained on, in nats. The table tells how far the others
    are behind, with the standard error of the difference taken row by row: models less than two of them apart are as good as
    equal. Below 2,000 rows each model is fitted five times, each time without another fifth of them, on which it is scored, and
    as `flows.fit` does it, a flow of more numbers than rows as an average over folds; the best is then fitted again to all.
    From 2,000 rows on one share is held out from all fits; as these rows also stop each fit early, the winner's figure is a
    little too good: keep rows of your own for a final one.

    A model that is behind the best so far by more than five standard errors after a third of its epochs is given up, and the
    table says so.

    Args:
        rng: key or seed, the same for all.
        candidates: distributions, a sequence or a dict with names, the cheap ones first; None for a list for so many rows and
            columns: the closed-form Gaussian, mixtures of Gaussians, and flows.
        data, context, weights, batch_size, max_epochs, patience, learning_rate, weight_decay, standardize, standardize_context,
            support, as_is, dequantize: as of `flows.fit`.
        validation: as of `flows.fit`: the share of rows to compare on, or such rows, and then there are no folds.
        max_minutes: for each fit.
        total_minutes: for all: no other model is begun after them.
        verbose: 1 for a bar for each fit; 0 for none.

    Returns:
        A `Selection`: `.best` is a `FitResult`, `.candidates` all of them, best first; `print` shows the table.

    Errors:
        As of `flows.fit` for the data. A model that cannot be fitted is told of in the table; a FlowsError only if none can.
        After Ctrl-C the table has what was fitted until then.

    Example:
        >>> import flows, jax
        >>> data = jax.random.normal(jax.random.key(0), (300, 2)) @ jax.numpy.array([[1.0, 0.0], [0.0, 0.3]])
        >>> data = data.at[:, 1].add(data[:, 0] ** 2)
        >>> models = {"gauss": flows.Normal(trainable=True), "flow": flows.Flow(flows.NSF(1, hidden=(8,), num_bins=4))}
        >>> selection = flows.select(0, models, data, max_epochs=20, learning_rate=1e-2, verbose=0)
        >>> selection.candidates[0].name
        'flow'
    """
    options, key = SelectOptions.of(locals() | {"judged": False}), as_key(rng)  # the table says which is behind
    found = read_arrays(data, options, key)
    given = found.source.given[0]
    rows = len(found.source.numbers) + (0 if found.source.others is None else len(found.source.others))
    folds = FOLDS if options.share is not None and FOLDS * 2 <= rows < FEW else 1
    models = suggested(rows, given.x.shape[1:], context is not None) if candidates is None else _named(candidates)
    noisy = np.all([own_noise(model, given.x.shape[-1]) for model in models.values()], 0)
    columns = check_data(found if folds == 1 else unsplit(found, options), options, noisy=noisy)
    comparison = Comparison(key, options, columns, parts_of(found, options, key, folds))
    for name, model in models.items():
        comparison.add(name, model)
    fitted = comparison.ranked()
    if folds > 1 and not comparison.interrupted:
        fitted[0] = fitted[0]._replace(result=comparison.of_all(models[fitted[0].name], found))
    return Selection(tuple(fitted), comparison.rows, folds)


def _named(candidates: Any) -> dict[str, DistributionLike]:
    if isinstance(candidates, Mapping):
        named = {str(name): each for name, each in candidates.items()}
    elif isinstance(candidates, list | tuple):
        named = {}
        for each in candidates:
            name = repr(each)
            named[name if name not in named else f"{name} ({len(named)})"] = each
    else:
        raise FlowsError(f"select: candidates is {candidates!r:.80}; expected a list or a dict of distributions, or None")
    if not named:
        raise FlowsError("select: there are no candidates; give some, or None for a list that suits the data")
    return named
