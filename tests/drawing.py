"""The registry of layers that draw, at the event that a test takes."""

from registry import Case

import flows
from flows.core import Region

NORMAL = flows.Normal(conditioner=flows.MLP(4, last_scale=1.0))
LOGISTIC = flows.Logistic(conditioner=flows.MLP(4, last_scale=1.0))
AFFINE = flows.RealNVP(2, hidden=(4,))


THREE_CODES = Region(0, 2, classes=3)
ONE_CODE = Region((0, -float("inf")), (2, float("inf")), classes=(3, 0))

DRAWING: dict[str, Case] = {
    "Slice": Case(flows.Slice(1, NORMAL), (3,)),
    "Slice, the last": Case(flows.Slice(1, NORMAL, first=False), (2,)),
    "Slice of codes": Case(flows.Slice(1, flows.Categorical(3, hidden=(4,)), first=False), (2,), domain=ONE_CODE),
    "Abs": Case(flows.Abs(), (2,)),
    "Abs, a network": Case(flows.Abs(flows.MLP(4, last_scale=1.0)), (2,)),
    "Sort": Case(flows.Sort(), (3,)),
    "Augment": Case(flows.Augment(2, NORMAL), (2,)),
    "VAE": Case(flows.VAE(NORMAL, NORMAL, 1), (2,)),
    "ContinuouslyIndexed": Case(flows.ContinuouslyIndexed(AFFINE, 1, NORMAL, NORMAL), (2,)),
    "Argmax": Case(flows.Argmax(3, LOGISTIC), (2,), domain=THREE_CODES),
    "Argmax, binary": Case(flows.Argmax(3, LOGISTIC, binary=True), (2,), domain=THREE_CODES),
    "Transition": Case(flows.Transition(flows.Normal(trainable=True), flows.mcmc.metropolis(2.0)), (2,)),
}
