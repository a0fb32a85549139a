"""The models that `flows.select` tries where none are given, from the cheapest to the largest that so many rows can train."""

import numpy as np

from flows.bijections.normal_scores import NormalScores
from flows.compose import Serial
from flows.conditioners import MLP
from flows.core import DistributionLike, FlowsError, Shape
from flows.distributions.flow import Flow
from flows.distributions.gmm import GMM
from flows.distributions.normal import Normal
from flows.models.autoregressive import MAF
from flows.models.monotone import BNAF
from flows.models.splines import NSF
from flows.training.options import FEW

MANY = 20_000  # rows from which models grow again
COMPONENTS = {"full": (3, 10, 20, 40, 100), "diagonal": (3, 10, 40)}  # of mixtures, by their covariance
MOST = {"full": 4, "diagonal": 2}  # of these, the largest
WIDTH = 32  # of the network of a conditional normal
MANY_BINS = 32  # of splines, which single out values that repeat
MOSTLY = 0.8  # of the values of a column: the share of whole numbers from which such splines pay
ROWS_A_COMPONENT = 3  # for each column: fewer leave a full covariance to the shrinkage


def suggested(rows: int, event: Shape, conditional: bool, whole: bool = False) -> dict[str, DistributionLike]:
    """Models to try on so many rows of vectors, by name; with bins for single values where some column is mostly `whole`."""
    if len(event) != 1:
        raise FlowsError(f"select: there is no list of models for events {event}; give candidates")
    (d,) = event
    if conditional:
        simple: list[DistributionLike] = [
            Normal(conditioner=MLP(WIDTH)),
            Normal(covariance="full", conditioner=MLP(WIDTH)),
        ]
    else:
        simple = [Normal()]  # behind the map that takes correlation out it is the closed-form Gaussian
        for covariance, counts in COMPONENTS.items():
            able = [k for k in counts if k == counts[0] or rows > ROWS_A_COMPONENT * d * k]
            simple += [GMM(num_components=k, covariance=covariance) for k in able[-MOST[covariance] :]]
    flows = [MAF(), BNAF(), NSF(), Serial(NormalScores(), NSF())]
    if whole:
        flows.append(NSF(num_bins=MANY_BINS))
    models: list[DistributionLike] = [*simple, *map(Flow, flows)]
    if rows >= FEW and d > 1:
        width = 64 if rows < MANY else 128
        models += [Flow(NSF(hidden=(width, width), autoregressive=False, linear=True))]
    return {repr(model): model for model in models}


def mostly_whole(x: np.ndarray) -> bool:
    """Tell whether a column holds whole numbers mostly, though not all are."""
    whole = (x == np.round(x)).mean(0)
    return bool(((whole > MOSTLY) & (whole < 1)).any())
