"""Is an observation like what the simulator makes? Nearest simulations, and ranks among simulations of its posterior."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from flows.checks.details import Details
from flows.checks.model import Model, flat, result_model
from flows.checks.verdicts import Checks, Finding, judged
from flows.core import FlowsError, as_key, explained_call, number
from flows.diagnostics.arrays import generator, unit_of
from flows.diagnostics.two_samples import nearest_distances
from flows.results.result import FitResult
from flows.sbi.prior import Prior
from flows.sbi.simulate import in_any_way
from flows.sbi.simulations import Simulations

REFERENCE, HELD_OUT = 10_000, 1_000  # simulations, at most
PREDICTED = 1_000
FEWEST = 200  # simulations in all


@explained_call("flows.sbi.check_observation(0, posterior, simulations, x, simulator)")
def check_observation(
    rng: Any, posterior: FitResult, simulations: Simulations, x: Any, simulator: Callable | None = None, *, level: float = 0.01
) -> Checks:
    """Check whether an observation is like what the simulator makes. A posterior of an observation that is not can be wrong by
    any amount, and its draws do not show it.

        outside     is x as near to its nearest simulations as simulations are that were held out? By all entries of x, and by
                    the features that the posterior's network makes of x; p = (1 + #(held out as far)) / (1 + held out)
        predictive  is x like simulations of its posterior? By the entry that lies furthest out among them, and by the distance
                    from their mean; p by ranks among 1,000 simulations

    Nothing is trained. What both miss: a simulator that is wrong in what no simulation, and no entry of x, shows.

    Args:
        rng: key or seed.
        posterior: a result of `fit_posterior`.
        simulations: of the prior; better ones that the fit did not see.
        x: one observation, of the shape of the posterior's context.
        simulator: as in `simulate`, in JAX or in this process; without it "predictive" cannot tell.
        level: the share of observations of the simulator itself that have a FAIL.

    Returns:
        `flows.Checks`, with the arrays "distances" of simulations held out and "predicted", simulations of the posterior.

    Errors:
        FlowsError: an observation of another shape, or not finite; fewer than 200 valid simulations.
    """
    if not isinstance(posterior, FitResult) or not isinstance(simulations, Simulations):
        raise TypeError(
            f"check_observation: got {posterior!r:.40} and {simulations!r:.40}; expected check_observation(rng, posterior, "
            "simulations, x)"
        )
    level = number(level, "check_observation: level", lambda p: 0 < p < 1, "a number between 0 and 1, such as 0.01")
    event, row = simulations.x.shape[1:], np.asarray(x)
    if row.shape != event or row.dtype.kind not in "fiub" or not np.isfinite(row).all():
        what = f"shape {row.shape}" if row.shape != event else "numbers that are not finite"
        raise FlowsError(f"check_observation: x has {what}; expected one observation, finite numbers of shape {event}")
    valid = np.flatnonzero(simulations.valid)
    if len(valid) < FEWEST:
        raise FlowsError(f"check_observation: {len(valid)} simulations are finite; expected at least {FEWEST}")
    keys, arrays = jax.random.split(as_key(rng), 3), dict[str, np.ndarray]()
    valid = generator(keys[0]).permutation(valid)[: REFERENCE + HELD_OUT]
    findings = {"outside": _outside(result_model(posterior), simulations, valid, row, arrays)}
    findings["predictive"] = Finding("no simulator")
    if simulator is not None:
        predicted = in_any_way(keys[1], Prior(posterior, context=row), simulator, PREDICTED)
        if predicted.x.shape[1:] != event:
            raise FlowsError(f"check_observation: the simulator makes rows of shape {predicted.x.shape[1:]}; expected {event}")
        findings["predictive"] = _predictive(predicted, row, arrays)
    checks = judged(findings, dict.fromkeys(findings, 0.0), level)
    remark = f"an observation of shape {event}, next to {len(valid):,} simulations"
    details = Details(result_model(posterior).about)
    return Checks(checks, None, {"remarks": [remark], "level": float(level)}, arrays, details)


def _outside(model: Model, sims: Simulations, valid: np.ndarray, row: np.ndarray, arrays: dict[str, np.ndarray]) -> Finding:
    """Rank distances to the nearest simulation; the worse of two ranks, of entries and of features, is ranked again, which
    keeps p exact."""
    count = max(len(valid) - HELD_OUT, len(valid) // 2)
    near = np.asarray(sims.x[np.sort(valid[:count])])
    others = np.concatenate([row[None], np.asarray(sims.x[np.sort(valid[count:])])])
    middle = near.mean(0, dtype=np.float64)  # far from 0, float32 would lose what differs
    pairs = {"entries": tuple(flat((x - middle).astype(np.float32)) for x in (others, near))}
    if (made := model.features(others)) is not None:
        pairs["features"] = made, model.features(near)  # type: ignore[assignment]
    distances = np.stack([nearest_distances(x, known, unit_of(known)[1]) for x, known in pairs.values()])
    arrays["distances"] = distances
    ranks = (distances[:, :, None] > distances[:, None, :]).mean(2)
    worst = ranks.max(0)
    at = int(ranks[:, 0].argmax())
    size = float(distances[at, 0] / max(float(np.median(distances[at, 1:])), 1e-30))
    detail = f"{size:.3g} times as far from simulations as one of them is, by {list(pairs)[at]} of x"
    return Finding(detail, size, float((worst >= worst[0]).mean()))


def _predictive(predicted: Simulations, row: np.ndarray, arrays: dict[str, np.ndarray]) -> Finding:
    """Rank x among simulations of its posterior, by its furthest entry and by its distance from their mean."""
    rows = flat(predicted.x[predicted.valid]).astype(np.float64)
    arrays["predicted"] = rows
    if len(rows) < FEWEST:
        return Finding(f"{len(rows)} of {PREDICTED:,} simulations of the posterior are finite")
    x = np.concatenate([row.reshape(1, -1), rows])
    middle, spread = unit_of(x)  # with x among them, ranks are exchangeable
    below = np.stack([np.searchsorted(np.sort(column), column, side="right") for column in x.T], 1)
    above = np.stack([np.searchsorted(np.sort(-column), -column, side="right") for column in x.T], 1)
    far = -np.minimum(below, above)  # the rank from the nearer end
    distance = np.square((x - middle) / spread).sum(1)
    scores = np.stack([far.max(1) + distance / (1 + distance.max()), distance])  # equal ranks are told apart by distance
    ranks = (scores[:, :, None] > scores[:, None, :]).mean(2)
    worst, entry = ranks.max(0), int(far[0].argmax())
    place, deviations = np.unravel_index(entry, row.shape), float((x[0] - middle)[entry] / spread[entry])
    detail = (
        f"entry {', '.join(map(str, place))} is {deviations:+.3g} deviations from the mean of simulations of the posterior; "
        f"distance {np.sqrt(distance[0]):.3g}, of simulations {np.sqrt(np.median(distance[1:])):.3g}"
    )
    return Finding(detail, abs(deviations), float((worst >= worst[0]).mean()))
