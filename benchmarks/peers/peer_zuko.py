"""The workloads in zuko."""

from functools import partial

import torch
from with_torch import model
from workloads import Model, Work
from zuko.distributions import DiagNormal
from zuko.flows import MAF, GeneralCouplingTransform
from zuko.lazy import Flow, UnconditionalDistribution
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform


def build(work: Work) -> Model:
    torch.manual_seed(0)
    d, bins = work.d, work.bins
    layer = {"hidden_features": work.hidden}
    if work.transformer == "affine":
        layer |= {"univariate": MonotonicAffineTransform, "shapes": [(), ()]}
    else:
        # Its NSF is this with a bound of 5, which it gives no way to change.
        layer |= {"univariate": partial(MonotonicRQSTransform, bound=work.bound), "shapes": [(bins,), (bins,), (bins - 1,)]}
    if work.kind == "coupling":
        # Rather than MAF with passes=2, whose masked networks see and transform all features. Of 2 n + 1 features n stay as
        # they are, first the left ones, then the right ones, which saves reversals.
        left = torch.arange(d) < d // 2
        layers = [GeneralCouplingTransform(d, mask=left.flip(0) if i % 2 else left, **layer) for i in range(work.layers)]
        flow = Flow(layers, UnconditionalDistribution(DiagNormal, torch.zeros(d), torch.ones(d), buffer=True))
    else:
        flow = MAF(d, transforms=work.layers, **layer)
    return model(flow.parameters(), lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))
