"""The models that `flows.select` tries where none are given, from the cheapest to the largest that so many rows can train."""

from flows.conditioners import MLP
from flows.core import FlowsError
from flows.core.contract import DistributionLike, Shape
from flows.distributions.flow import Flow
from flows.distributions.gmm import GMM
from flows.distributions.normal import Normal
from flows.models.autoregressive import MAF
from flows.models.splines import NSF
from flows.training.options import FEW

MANY = 20_000  # rows from which models grow again
COMPONENTS = (3, 10, 40)
ROWS_A_COMPONENT = 3  # for each column: fewer leave a full covariance to the shrinkage


def suggested(rows: int, event: Shape, conditional: bool) -> dict[str, DistributionLike]:
    """Models to try on so many rows of vectors, by name."""
    if len(event) != 1:
        raise FlowsError(f"select: there is no list of models for events {event}; give candidates")
    (d,), width = event, 32 if rows < FEW else 64 if rows < MANY else 128
    hidden, dropout = (width, width), 0.1 if rows < FEW else 0.0
    if conditional:
        models: list[DistributionLike] = [
            Normal(conditioner=MLP(width)),
            Normal(covariance="full", conditioner=MLP(width)),
        ]
    else:
        counts = [k for k in COMPONENTS if k == COMPONENTS[0] or rows > ROWS_A_COMPONENT * d * k]
        models = [Normal()]  # behind the map that takes correlation out it is the closed-form Gaussian
        models += [GMM(num_components=k) for k in counts]
        models += [GMM(num_components=counts[-1], covariance="diagonal")]
    models += [Flow(MAF(3 if rows < FEW else 5, hidden=hidden, dropout=dropout)), Flow(NSF(hidden=hidden, dropout=dropout))]
    if rows >= FEW and d > 1:
        models += [Flow(NSF(hidden=hidden, dropout=dropout, autoregressive=False, linear=True))]
    return {repr(model): model for model in models}
