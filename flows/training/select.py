"""`flows.select`: which of several models fits the data best."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from flows.conditioners import MLP
from flows.core import FlowsError, trainable
from flows.core.contract import DistributionLike
from flows.core.inputs import as_key
from flows.distributions.flow import Flow
from flows.distributions.mixture import Mixture
from flows.distributions.normal import Normal
from flows.models.autoregressive import MAF
from flows.models.coupling import RealNVP
from flows.models.splines import NSF
from flows.training.data_checks import check_data
from flows.training.fit import fit_rows, own_layers
from flows.training.options import LEARNING_RATE, Options, check_distribution
from flows.training.preprocess import Prepared, prepare
from flows.training.reading import Rows, read_arrays
from flows.training.result import FitResult

FEW, MANY = 2_000, 20_000  # rows from which models grow


class Candidate(NamedTuple):
    """One model, fitted and scored on the rows held out.

    Attributes:
        name, init_fun: as given, or as the model prints.
        result: a `FitResult`, or None where the fit failed.
        nats: the mean log_pdf of the rows held out.
        error: the standard error of that mean.
        behind: by how many nats the best is better, and the standard error of that difference, row by row.
        num_params: trained numbers.
        failure: why the fit failed, or "".
    """

    name: str
    init_fun: Any
    result: FitResult | None
    nats: float
    error: float
    behind: tuple[float, float]
    num_params: int
    failure: str


class Selection(NamedTuple):
    """Candidates, best first. Prints as a table; `.best` is the `FitResult` of the first."""

    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> FitResult:
        best = self.candidates[0].result
        if best is None:  # `select` raises before it comes to that
            raise FlowsError("select: no candidate was fitted")
        return best

    def __str__(self) -> str:
        width = max(len(each.name) for each in self.candidates)
        lines = [f"{'model':{width}}  {'nats a row':>18}  {'behind the best':>18}  {'params':>9}"]
        for each in self.candidates:
            if each.result is None:
                lines.append(f"{each.name:{width}}  failed: {each.failure}")
                continue
            nats, behind = f"{each.nats:.3f} +- {each.error:.3f}", f"{each.behind[0]:.3f} +- {each.behind[1]:.3f}"
            lines.append(f"{each.name:{width}}  {nats:>18}  {behind:>18}  {each.num_params:>9,}")
        return "\n".join(lines)


def select(
    rng: Any,
    candidates: Sequence[DistributionLike] | Mapping[str, DistributionLike] | None,
    data: Any,
    *,
    context: Any = None,
    validation: Any = 0.2,
    batch_size: int | None = None,
    max_epochs: int | None = None,
    max_minutes: float | None = None,
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

    A model wins by the mean of its log_pdf over the rows held out, in nats. The table tells how far the others are behind,
    with the standard error of the difference taken row by row: models less than two of them apart are as good as equal. The
    rows held out also stop each fit early, so the winner's figure is a little too good: keep rows of your own for a final
    one.

    Args:
        rng: key or seed, the same for all.
        candidates: distributions, a sequence or a dict with names; None for a sensible list for so many rows and columns,
            which always has a full-covariance Gaussian and a small flow.
        data, context, batch_size, max_epochs, patience, learning_rate, standardize, standardize_context,
            support, as_is, dequantize: as of `flows.fit`.
        validation: as of `flows.fit`: the share of rows to compare on, or such rows.
        max_minutes: for each model.
        verbose: 1 for a bar for each model; 0 for none.

    Returns:
        A `Selection`: `.best` is a `FitResult`, `.candidates` all of them, best first; `print` shows the table.

    Errors:
        As of `flows.fit` for the data. A model that cannot be fitted is told of in the table; a FlowsError only if none can.
        After Ctrl-C the table has what was fitted until then.

    Example:
        >>> import flows, jax
        >>> data = jax.random.normal(jax.random.key(0), (300, 2)) ** 3
        >>> models = {"gauss": flows.Normal(trainable=True), "flow": flows.Flow(flows.NSF(1, hidden=(8,), num_bins=4))}
        >>> selection = flows.select(0, models, data, max_epochs=20, learning_rate=1e-2, verbose=0)
        >>> selection.candidates[0].name
        'flow'
    """
    options, key = Options.of(locals() | {"judged": False}), as_key(rng)  # the table says which is behind
    found = read_arrays(data, options, key)
    columns = check_data(found, options)
    prepared: dict[tuple, Prepared] = {}  # by the layers of a model's own that rows go through first
    if candidates is None:
        candidates = suggested(len(found.train.x), found.train.x.shape[1:], context is not None)
    fitted: list[Any] = []
    interrupted = False
    for name, init_fun in _named(candidates).items():
        if interrupted:
            fitted.append((name, init_fun, None, None, "not fitted, as another was interrupted"))
            continue
        try:
            check_distribution(init_fun, options.caller)
            own, model = own_layers(init_fun, found, options)
            if own not in prepared:
                prepared[own] = prepare(found, columns, options, key, own)
            result = fit_rows(key, model, prepared[own], options)
            fitted.append((name, init_fun, result, _scores(result, found.held_out, dequantize, key), ""))
            interrupted = result.history.interrupted
        except KeyboardInterrupt:
            if all(each[2] is None for each in fitted):
                raise
            fitted.append((name, init_fun, None, None, "interrupted"))
            interrupted = True
        except Exception as error:  # the other models are worth having, whatever went wrong with this one
            kind = "" if isinstance(error, FlowsError) else f"{type(error).__name__}: "
            fitted.append((name, init_fun, None, None, f"{kind}{error}"))
    if all(each[2] is None for each in fitted):
        raise FlowsError("select: no candidate could be fitted. " + " ".join(f"{each[0]}: {each[4]}." for each in fitted))
    fitted.sort(key=lambda each: -np.inf if each[3] is None else each[3].mean(), reverse=True)
    return Selection(tuple(_candidate(fitted[0][3], *each) for each in fitted))


def suggested(rows: int, event: tuple[int, ...], conditional: bool) -> list[Any]:
    """Models to try on so many rows, from a Gaussian to flows that this many rows can train."""
    if len(event) != 1:
        raise FlowsError(f"select: there is no list of models for events {event}; give candidates")
    width, layers, bins = (32, 3, 4) if rows < FEW else (64, 4, 8) if rows < MANY else (128, 5, 8)
    hidden = (width, width)
    small = Flow(NSF(2, hidden=(16, 16), num_bins=4))
    if conditional:
        gaussians = [Normal(conditioner=MLP(32))]
    else:
        gaussian = Normal(trainable=True, covariance="full")
        gaussians = [gaussian, Mixture(gaussian, num_components=min(10, 2 + rows // 100))]
    coupling = [] if event[0] == 1 else [Flow(RealNVP(2 * layers, hidden=hidden))]
    return [*gaussians, small, *coupling, Flow(MAF(layers, hidden=hidden)), Flow(NSF(layers, hidden=hidden, num_bins=bins))]


def _named(candidates: Any) -> dict[str, Any]:
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


def _scores(result: FitResult, held_out: Rows, dequantize: Any, key: Any) -> np.ndarray:
    """log_pdf of each row held out."""
    rng = key if dequantize is not None and dequantize is not False else None
    context = {} if held_out.context is None else {"context": held_out.context}
    pieces = [
        result.log_pdf(result.params, held_out.x[i : i + 10_000], rng=rng, **{k: v[i : i + 10_000] for k, v in context.items()})
        for i in range(0, len(held_out.x), 10_000)
    ]
    return np.concatenate([np.asarray(each, float) for each in pieces])


def _candidate(best: np.ndarray, name: str, init_fun: Any, result: Any, scores: Any, failure: str) -> Candidate:
    if result is None:
        return Candidate(name, init_fun, None, np.nan, np.nan, (np.nan, np.nan), 0, failure)
    difference = best - scores

    def error_of_mean(values: np.ndarray) -> float:
        return float(values.std() / np.sqrt(len(values)))

    return Candidate(
        name, init_fun, result, float(scores.mean()), error_of_mean(scores),
        (float(difference.mean()), error_of_mean(difference)), _trained(result.params), "",
    )  # fmt: skip


def _trained(params: Any) -> int:
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(trainable(params)), strict=True)
    return sum(int(leaf.size) for leaf, trains in pairs if trains)
