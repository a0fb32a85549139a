"""The Glow of normflows and of nflows: (model, loss of a batch), for images of (channels, side, side).

That of normflows is composed as in its documentation, without classes; that of nflows of its transforms, with the same network
in its couplings, as its own networks have other convolutions.
"""

import torch


class Network(torch.nn.Module):
    """Convolutions of 3x3, 1x1 and 3x3 whose last starts at 0; nflows hands it a context."""

    def __init__(self, inputs, outputs, width):
        super().__init__()
        last = torch.nn.Conv2d(width, outputs, 3, padding=1)
        torch.nn.init.zeros_(last.weight), torch.nn.init.zeros_(last.bias)
        relu = torch.nn.ReLU(inplace=True)
        first = torch.nn.Conv2d(inputs, width, 3, padding=1)
        self.net = torch.nn.Sequential(first, relu, torch.nn.Conv2d(width, width, 1), relu, last)

    def forward(self, x, context=None):
        return self.net(x)


def of_normflows(channels, side, layers, width, levels, transform=None):
    import normflows as nf

    def blocks(channels):
        steps = [nf.flows.GlowBlock(channels, width, split_mode="channel", scale=True) for _ in range(layers)]
        return [*steps, nf.flows.Squeeze()]

    bases, scales = [], []
    for i in range(levels):  # the last scale first
        scales.append(blocks(channels * 2 ** (levels + 1 - i)))
        out = side // 2 ** (levels - i)
        bases.append(nf.distributions.DiagGaussian((channels * 2 ** (levels + 1 - i - (i > 0)), out, out)))
    merges = [nf.flows.Merge() for _ in range(levels - 1)]
    model = nf.MultiscaleFlow(bases, scales, merges, transform, class_cond=False)
    return model, model.forward_kld


def of_nflows(channels, side, layers, width, levels):
    from nflows import distributions, flows, transforms

    def step(channels):
        mask = [0] * (channels // 2) + [1] * (channels - channels // 2)  # 1 for what is transformed
        coupling = transforms.AffineCouplingTransform(mask, lambda inputs, outputs: Network(inputs, outputs, width))
        return [transforms.ActNorm(channels), transforms.OneByOneConvolution(channels), coupling]

    whole, shape = transforms.MultiscaleCompositeTransform(levels), (channels, side, side)
    for _ in range(levels):
        shape = (4 * shape[0], shape[1] // 2, shape[2] // 2)
        steps = [each for _ in range(layers) for each in step(shape[0])]
        shape = whole.add_transform(transforms.CompositeTransform([transforms.SqueezeTransform(), *steps]), shape)
    model = flows.Flow(whole, distributions.StandardNormal([channels * side * side]))
    return model, lambda x: -model.log_prob(x).mean()
