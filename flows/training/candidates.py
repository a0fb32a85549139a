"""The models that `flows.select` tries where none are given, from the cheapest to the largest that so many rows can train."""

from typing import Any, NamedTuple

from flows.conditioners import MLP
from flows.core import FlowsError
from flows.core.contract import Shape
from flows.distributions.flow import Flow
from flows.distributions.gmm import GMM
from flows.distributions.normal import Normal
from flows.models.autoregressive import MAF
from flows.models.splines import NSF

FEW, MANY = 2_000, 20_000  # rows from which models grow
COMPONENTS = (3, 10, 40)
ROWS_A_COMPONENT = 3  # for each column: fewer leave a full covariance to the shrinkage
MEMBERS = 5


class Plan(NamedTuple):
    """A model to fit, or so many members of an ensemble of it."""

    init_fun: Any
    members: int | None = None

    @property
    def name(self) -> str:
        return repr(self.init_fun) if self.members is None else f"{self.members} x {self.init_fun!r}"


def suggested(rows: int, event: Shape, conditional: bool) -> dict[str, Plan]:
    """Models to try on so many rows of vectors, by name."""
    if len(event) != 1:
        raise FlowsError(f"select: there is no list of models for events {event}; give candidates")
    (d,), width = event, 32 if rows < FEW else 64 if rows < MANY else 128
    hidden, dropout = (width, width), 0.1 if rows < FEW else 0.0
    if conditional:
        plans = [
            Plan(Normal(conditioner=MLP(width))),
            Plan(Normal(covariance="full", conditioner=MLP(width))),
        ]
    else:
        counts = [k for k in COMPONENTS if k == COMPONENTS[0] or rows > ROWS_A_COMPONENT * d * k]
        plans = [Plan(Normal())]  # behind the map that takes correlation out it is the closed-form Gaussian
        plans += [Plan(GMM(num_components=k)) for k in counts]
        plans += [Plan(GMM(num_components=counts[-1], covariance="diagonal"))]
    maf = Flow(MAF(3 if rows < FEW else 5, hidden=hidden, dropout=dropout))
    plans += [Plan(maf)]
    plans += [Plan(maf, MEMBERS)] if rows < FEW else []
    plans += [Plan(Flow(NSF(hidden=hidden, dropout=dropout)))]
    plans += [Plan(Flow(NSF(hidden=hidden, dropout=dropout, autoregressive=False, linear=True)))] if d > 1 else []
    return {plan.name: plan for plan in plans}
