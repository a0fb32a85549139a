"""`flows.select`: a comparison of several models on the same data, and their mixture."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np

from flows.bijections.quantile_maps import NormalScores
from flows.compose import Serial
from flows.conditioners import MLP
from flows.core import DistributionInit, DistributionLike, FlowsError, Shape, as_key, explained_call
from flows.distributions.flow import Flow
from flows.distributions.normal import Normal
from flows.distributions.normal_mixtures import GMM
from flows.models.autoregressive import MAF
from flows.models.monotone import BNAF
from flows.models.splines import NSF
from flows.results.history import OF_LABELS, by_heart
from flows.results.result import FitResult
from flows.training.comparison import SURE, Candidate, Comparison, SelectOptions, best_first
from flows.training.data.facts import Shared, check_data
from flows.training.data.read import is_iterable, read_arrays
from flows.training.data.region import check_ends_are_near
from flows.training.data.rounding import spiked
from flows.training.devices import devices_of
from flows.training.fit import SelectKeywords, hands_on
from flows.training.model_view import ModelView
from flows.training.options import FEW, FOLDS

TINY = 1e-3  # nats
NO_FAULT = ("given up", "not fitted", "interrupted")

# The default list of models.
MANY = 20_000  # rows from which networks are wider
COMPONENTS = {"full": (3, 10, 20, 40, 100), "diagonal": (3, 10, 40)}  # of mixtures, by their covariance
MOST = {"full": 4, "diagonal": 2}  # mixtures of each kind, the largest ones
WIDTH = 32  # of the network of a conditional normal
MANY_BINS, MANY_KNOTS = 32, 128  # of splines and of quantiles, which can follow values that repeat
ROWS_A_COMPONENT = 3  # for each column; with fewer, shrinkage alone determines a full covariance


class Selection(NamedTuple):
    """Candidates, best first, and their stack. Prints as a table; `.best` is the `FitResult` to use.

    The stack is the mixture of the candidates, with the weights of the highest likelihood on the held-out rows. It is `.best`
    if it leads the best single model by two standard errors, on rows that did not determine its weights.

    Attributes:
        candidates: a `Candidate` for each model.
        rows: the numbers of the scored rows.
        folds: how many times each model was fitted, each time without a part of the rows; 1 if all fits hold out one share.
        weights: the share of each candidate in the stack, by name; candidates that add less than 0.005 nats are left out.
        stacked: the stack as a `Candidate`, where each row is scored with weights that it did not determine; None if no stack
            could be made.
    """

    candidates: tuple[Candidate, ...]
    rows: np.ndarray
    folds: int
    weights: dict[str, float]
    stacked: Candidate | None

    @property
    def best(self) -> FitResult:
        """The stack if it leads by two standard errors, otherwise the best single model."""
        return self.single if self.stack is None or not self.stack_leads else self.stack

    @property
    def single(self) -> FitResult:
        """The result of the best single model."""
        best = self.candidates[0].result
        if best is None:  # `select` raises before this can happen
            raise FlowsError("select: no candidate was fitted")
        return best

    @property
    def stack(self) -> FitResult | None:
        """The mixture of all candidates with a weight; the result of the best candidate if it has all the weight."""
        return None if self.stacked is None else self.stacked.result

    @property
    def stack_leads(self) -> bool:
        """Tell whether the stack leads the best single model by two standard errors."""
        if self.stacked is None or len(self.weights) < 2:
            return False
        behind, error = self.stacked.behind
        return -behind > SURE * error

    def __str__(self) -> str:
        stack = [self.stacked] if self.stacked is not None and len(self.weights) > 1 else []
        ranked = best_first([*self.candidates, *stack])
        width = max(len(model.name) for model in ranked)
        heads = f"{'log-likelihood':>18}  {'behind the best':>18}  {'params':>9}  {'seconds':>7}  {'us a row':>8}"
        lines = [f"{'model':{width}}  {heads}"]
        for model in ranked:
            if model.result is None:
                lines.append(f"{model.name:{width}}  {'' if model.failure.startswith(NO_FAULT) else 'failed: '}{model.failure}")
                continue
            nats, behind = f"{model.nats:.3f} +- {model.error:.3f}", f"{model.behind[0]:.3f} +- {model.behind[1]:.3f}"
            lines.append(
                f"{model.name:{width}}  {nats:>18}  {behind:>18}  {model.num_params:>9,}  {model.seconds:>7.1f}  "
                f"{model.cost:>8.3g}"
            )
        if stack:
            shares = ", ".join(f"{share:.2f} {name}" for name, share in self.weights.items())
            lines.append(f"The stack is {shares}; .best is {'the stack' if self.stack_leads else 'the single model'}")
        others = [candidate for candidate in self.candidates[1:] if candidate.result is not None]
        equal = [candidate.name for candidate in others if candidate.behind[0] <= max(SURE * candidate.behind[1], TINY)]
        if equal:
            lines.append(f"The first model is no better, within {SURE:g} standard errors, than {', '.join(equal)}")
        models = [(model.name, model.result.init_fun) for model in self.candidates if model.result is not None]
        for label, text in OF_LABELS.items():
            if names := [name for name, model in models if getattr(model, "likelihood", "exact") == label]:
                lines.append(f"Log-likelihood of {', '.join(names)}: {text}")
        if untried := [model.name for model in self.candidates if model.failure == "not fitted, as the time was over"]:
            lines.append(f"Not tried, as the time was over: {', '.join(untried)}; give more minutes, or these models alone")
        lines += [f"Of the best, {text}" for text in by_heart(self.best.history)]
        return "\n".join(lines)


@explained_call("flows.select(0, None, data)")
@hands_on(SelectKeywords)
def select(
    rng: Any,
    candidates: Sequence[DistributionLike] | Mapping[str, DistributionLike] | None,
    data: Any,
    *,
    validation: Any = 0.2,
    total_minutes: float | None = None,
    **keywords: Unpack[SelectKeywords],
) -> Selection:
    """Fit several models to the same rows, and compare them on the same held-out rows.

    A model is judged by the mean of its log_pdf, in nats, over rows that it was not trained on. The table shows how far each
    model is behind the best, with the standard error of the difference, taken row by row: a difference below two standard
    errors may be chance. Below 2,000 rows each model is `flows.fit(folds=5)`: the average of five models, each fitted without
    another fifth of the rows and scored on it. From 2,000 rows on, all fits hold out the same share. These rows also stop each
    fit early, so the score of the best model is a little too high: hold out other rows for a final score.

    Different models are wrong in different places, so their mixture, the stack, is often better than any single model. Its
    weights have the highest likelihood on the held-out rows. To score a row it takes the time of all its members together.

    A model that is more than five standard errors behind the best so far, after a third of its epochs, is given up, and the
    table says so.

    Args:
        rng: key or seed, the same for all fits.
        candidates: distributions, a sequence or a dict with names, the cheap ones first; None for a list that suits the numbers
            of rows and columns: the closed-form Gaussian, mixtures of Gaussians, and flows.
        data, context, weights, groups, order, batch_size, max_epochs, patience, learning_rate, weight_decay, standardize,
            standardize_context, support, as_is, dequantize, mesh, rows: as in `flows.fit`.
        validation: the share of rows to compare on; or rows to compare on, as in `flows.fit`, and then there are no folds.
        max_minutes: time limit of each fit.
        total_minutes: time limit of all fits. The fit that runs then stops after its epoch, and counts; no further fit begins.
            The first fit has at least one epoch.
        verbose: 1 for a bar for each fit, with the time that all fits take at most where it is limited; 0 for none.

    Returns:
        A `Selection`: `.best` is a `FitResult`, the stack if it leads by two standard errors, otherwise the best single model;
        `.single`, `.stack`, `.weights` and `.candidates`, best first; `print` shows the table.

    Errors:
        The errors of `flows.fit` for the data. If a model cannot be fitted, the table says why; a FlowsError only if no model
        can. After Ctrl-C the table has the models that are fitted so far.

    Source:
        Smyth and Wolpert, "Linearly Combining Density Estimators via Stacking", Machine Learning 36, 1998; Yao, Vehtari,
        Simpson and Gelman, "Using Stacking to Average Bayesian Predictive Distributions", 2018, arXiv:1704.02030.

    Example:
        >>> import flows, jax
        >>> data = jax.random.normal(jax.random.key(0), (300, 2)) @ jax.numpy.array([[1.0, 0.0], [0.0, 0.3]])
        >>> data = data.at[:, 1].add(data[:, 0] ** 2)
        >>> models = {"gauss": flows.Normal(trainable=True), "flow": flows.Flow(flows.NSF(1, hidden=(8,), num_bins=4))}
        >>> selection = flows.select(0, models, data, max_epochs=20, learning_rate=1e-2, verbose=0)
        >>> selection.candidates[0].name
        'flow'
    """
    if is_iterable(data):
        raise FlowsError(f"select: data is an iterable ({type(data).__name__}); expected rows in memory. flows.fit takes it")
    with devices_of(keywords.get("mesh"), "fit"):
        options = SelectOptions(validation=validation, total_minutes=total_minutes, **keywords)
        key = as_key(rng)
        split = read_arrays(data, options, key)
        table, rows = split.whole, len(split.numbers())
        few = FOLDS * 2 <= rows < FEW and split.suits_folds(FOLDS, options)
        folds = FOLDS if options.share is not None and few else 1
        models = (
            suggested(rows, table.event, options.context is not None, spiked(table.x))
            if candidates is None
            else _named(candidates)
        )
        views = [ModelView(model, table.event, table.context_event, standardize=False) for model in models.values()]
        noisy, coded = (np.all([ask(view) for view in views], 0) for ask in (lambda view: view.noisy, _coded))
        columns = check_data(split.for_folds(folds, options), options, Shared(coded, coded, noisy))
        check_ends_are_near(split.train, (), columns.ends)
        comparison = Comparison(key, options, columns, split, folds, len(models))
        for name, model in models.items():
            comparison.add(name, model)
        ranked = comparison.ranked()
        weights, stacked = comparison.stacked(ranked)
        return Selection(tuple(ranked), comparison.rows, folds, weights, stacked)


def _coded(view: ModelView) -> np.ndarray:
    """Mark columns that a model takes as codes; all for a model that cannot be made, as the comparison reports it later."""
    try:
        return view.coded if isinstance(view.init_fun, DistributionInit) else np.zeros(view.columns, bool)
    except Exception:
        return np.ones(view.columns, bool)


def _named(candidates: Any) -> dict[str, DistributionLike]:
    if isinstance(candidates, Mapping):
        named = {str(name): candidate for name, candidate in candidates.items()}
    elif isinstance(candidates, list | tuple):
        named = {}
        for candidate in candidates:
            name = repr(candidate)
            named[name if name not in named else f"{name} ({len(named)})"] = candidate
    else:
        raise FlowsError(f"select: candidates is {candidates!r:.80}; expected a list or a dict of distributions, or None")
    if not named:
        raise FlowsError("select: there are no candidates; give some, or None for a list that suits the data")
    return named


def suggested(rows: int, event: Shape, conditional: bool, spikes: bool = False) -> dict[str, DistributionLike]:
    """Return models to try on this many rows of vectors, by name; with `spikes`, splines of more bins and quantiles."""
    if len(event) != 1:
        raise FlowsError(f"select: there is no list of models for events {event}; give candidates")
    (d,) = event
    if conditional:
        simple: list[DistributionLike] = [
            Normal(conditioner=MLP(WIDTH)),
            Normal(covariance="full", conditioner=MLP(WIDTH)),
        ]
    else:
        simple = [Normal()]  # behind the map that removes correlation this is the closed-form Gaussian
        for covariance, counts in COMPONENTS.items():
            able = [k for k in counts if k == counts[0] or rows > ROWS_A_COMPONENT * d * k]
            simple += [GMM(num_components=k, covariance=covariance) for k in able[-MOST[covariance] :]]
    flows = [MAF(), BNAF(), NSF()]
    if spikes:  # first, as there may not be time for all
        flows = [Serial(NormalScores(MANY_KNOTS), NSF()), NSF(num_bins=MANY_BINS), *flows]
    else:
        flows.append(Serial(NormalScores(), NSF()))
    if rows >= FEW and d > 1:
        width = 64 if rows < MANY else 128
        flows.append(NSF(hidden=(width, width), autoregressive=False, linear=True))
    return {repr(model): model for model in [*simple, *map(Flow, flows)]}
