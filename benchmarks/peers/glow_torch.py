"""The Glow of normflows or of nflows, in a process of its own: see glow_worker.py.

That of normflows is composed as in its documentation, without classes; that of nflows of its transforms, with the same network
in its couplings, as its own networks have other convolutions.
"""

import json
import os
import sys

library, core, sizes = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
os.sched_setaffinity(0, {core})  # before a library starts its threads
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch  # noqa: E402
from glow_worker import serve  # noqa: E402

torch.set_num_threads(1)
torch.manual_seed(0)
side, layers, width, levels = (sizes[name] for name in ("side", "layers", "width", "levels"))


class Network(torch.nn.Module):
    """Convolutions of 3x3, 1x1 and 3x3 whose last starts at 0; nflows hands it a context."""

    def __init__(self, inputs, outputs):
        super().__init__()
        last = torch.nn.Conv2d(width, outputs, 3, padding=1)
        torch.nn.init.zeros_(last.weight), torch.nn.init.zeros_(last.bias)
        relu = torch.nn.ReLU(inplace=True)
        first = torch.nn.Conv2d(inputs, width, 3, padding=1)
        self.net = torch.nn.Sequential(first, relu, torch.nn.Conv2d(width, width, 1), relu, last)

    def forward(self, x, context=None):
        return self.net(x)


def of_normflows():
    import normflows as nf

    def blocks(channels):
        steps = [nf.flows.GlowBlock(channels, width, split_mode="channel", scale=True) for _ in range(layers)]
        return [*steps, nf.flows.Squeeze()]

    bases, scales = [], []
    for i in range(levels):  # the last scale first
        scales.append(blocks(3 * 2 ** (levels + 1 - i)))
        out = side // 2 ** (levels - i)
        bases.append(nf.distributions.DiagGaussian((3 * 2 ** (levels + 1 - i - (i > 0)), out, out)))
    model = nf.MultiscaleFlow(bases, scales, [nf.flows.Merge() for _ in range(levels - 1)])
    return model, model.forward_kld


def of_nflows():
    from nflows import distributions, flows, transforms

    def step(channels):
        mask = [0] * (channels // 2) + [1] * (channels - channels // 2)  # 1 for what is transformed
        coupling = transforms.AffineCouplingTransform(mask, Network)
        return [transforms.ActNorm(channels), transforms.OneByOneConvolution(channels), coupling]

    whole, shape = transforms.MultiscaleCompositeTransform(levels), (3, side, side)
    for _ in range(levels):
        shape = (4 * shape[0], shape[1] // 2, shape[2] // 2)
        steps = [each for _ in range(layers) for each in step(shape[0])]
        shape = whole.add_transform(transforms.CompositeTransform([transforms.SqueezeTransform(), *steps]), shape)
    model = flows.Flow(whole, distributions.StandardNormal([3 * side * side]))
    return model, lambda x: -model.log_prob(x).mean()


def build():
    model, loss_of = {"normflows": of_normflows, "nflows": of_nflows}[library]()
    x = torch.randn(sizes["batch"], 3, side, side)
    with torch.no_grad():
        loss_of(x)  # sets the norms
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad()
        loss = loss_of(x)
        loss.backward()
        optimizer.step()
        if not torch.isfinite(loss):
            raise SystemExit(f"{library}: a step came to a loss of {loss}")

    return step, sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


serve(build)
