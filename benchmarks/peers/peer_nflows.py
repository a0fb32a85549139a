"""The workloads in nflows."""

import warnings

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms.autoregressive import (
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
)
from nflows.transforms.base import CompositeTransform
from nflows.transforms.coupling import AffineCouplingTransform, PiecewiseRationalQuadraticCouplingTransform
from nflows.transforms.permutations import ReversePermutation
from torch import nn
from with_torch import model
from workloads import Model, Work

# Spline couplings divide by the root of a network's `hidden_features`, if it tells them, which takes a tenth of a step and is
# not needed for weights as PyTorch draws them; else they warn.
warnings.filterwarnings("ignore", message="Inputs to the softmax are not scaled down")


class Network(nn.Sequential):
    """A plain network: nflows' own cannot be called with the context that its layers pass."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int):
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        super().__init__(*layers, nn.Linear(inputs, outputs))

    def forward(self, x, context=None):
        return super().forward(x)


def build(work: Work) -> Model:
    torch.manual_seed(0)
    affine = work.transformer == "affine"
    spline = {} if affine else {"num_bins": work.bins, "tails": "linear", "tail_bound": work.bound}
    layers: list[nn.Module] = []
    for i in range(work.layers):
        if work.kind == "coupling":
            make = AffineCouplingTransform if affine else PiecewiseRationalQuadraticCouplingTransform
            # Of 2 n + 1 features n stay as they are, first the left ones, then the right ones, which saves reversals.
            right = (torch.arange(work.d) >= work.d // 2).int()
            layers.append(
                make(right.flip(0) if i % 2 else right, lambda *ends: Network(ends[0], work.hidden, ends[1]), **spline)
            )
        else:
            if len(set(work.hidden)) != 1:
                raise NotImplementedError("nflows: hidden layers of several widths")
            make = MaskedAffineAutoregressiveTransform if affine else MaskedPiecewiseRationalQuadraticAutoregressiveTransform
            if i:
                layers.append(ReversePermutation(work.d))
            # Its first hidden layer is none of the blocks.
            layers.append(make(work.d, work.hidden[0], num_blocks=len(work.hidden) - 1, use_residual_blocks=False, **spline))
    flow = Flow(CompositeTransform(layers), StandardNormal([work.d]))
    return model(flow.parameters(), flow.log_prob, flow.sample)
