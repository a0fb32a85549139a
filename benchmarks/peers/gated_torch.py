"""A coupling of Flow++ in plain torch, in a process of its own: see glow_worker.py. Called `CORE SIZES`, with "what" "step" or
"sample" in SIZES, by `gated.py`: the same network and mixture, the gradient of the mean log-density, or draws by bisection.
"""

import json
import math
import os
import sys

core, sizes = int(sys.argv[1]), json.loads(sys.argv[2])
os.sched_setaffinity(0, {core})  # before a library starts its threads
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch  # noqa: E402
from glow_worker import serve  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

torch.set_num_threads(1)
torch.manual_seed(0)
width, side, images, half, heads, parts = (sizes[name] for name in ("width", "side", "images", "half", "heads", "parts"))
HALVINGS = 32  # of a bracket of 200, which leave 5e-8


def both_signs(x):
    return functional.elu(torch.cat([x, -x], 1))


def let_through(h, value_and_gate):
    value, gate = value_and_gate.chunk(2, 1)
    return h + value * torch.sigmoid(gate)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(2 * width, width, 3, padding=1), nn.Conv2d(2 * width, 2 * width, 1)
        self.attention, self.mixed = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, 2 * width, 1)
        self.norms = nn.ModuleList([nn.LayerNorm(width, eps=1e-6) for _ in range(2)])

    def normed(self, h, i):
        return self.norms[i](h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def forward(self, h, positions):
        h = self.normed(let_through(h, self.gate(both_signs(self.conv(both_signs(h))))), 0)
        qkv = self.attention(h + positions).reshape(len(h), 3, heads, width // heads, side * side).transpose(3, 4)
        q, k, v = qkv.unbind(1)
        mean = functional.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(h.shape)
        return self.normed(let_through(h, self.mixed(mean)), 1)


class Coupling(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(half, width, 3, padding=1)
        self.positions = nn.Parameter(0.01 * torch.randn(width, side, side))
        self.blocks = nn.ModuleList([Block() for _ in range(2)])
        self.last = nn.Conv2d(width, half * (3 * parts + 2), 3, padding=1)
        with torch.no_grad():
            self.last.weight.mul_(0.01)

    def numbers(self, x):
        h = self.first(x)
        for block in self.blocks:
            h = block(h, self.positions)
        theta = self.last(h).reshape(len(x), half, 3 * parts + 2, side, side).transpose(1, 2)
        logits, means, log_scales = theta[:, : 3 * parts].chunk(3, 1)
        offsets = torch.linspace(-1, 1, parts).reshape(1, parts, 1, 1, 1)
        return torch.log_softmax(logits, 1), means + offsets, 7 * torch.tanh(log_scales / 7), theta[:, -2], theta[:, -1]

    def moved(self, numbers, x):
        """y and log dy/dx."""
        log_weights, means, log_scales, a, b = numbers
        at = (x[:, None] - means) * torch.exp(-log_scales)
        below = torch.logsumexp(log_weights + functional.logsigmoid(at), 1)
        above = torch.logsumexp(log_weights + functional.logsigmoid(-at), 1)
        slope = torch.logsumexp(log_weights + functional.logsigmoid(at) + functional.logsigmoid(-at) - log_scales, 1)
        a = 7 * torch.tanh(a / 7)
        return (below - above) * torch.exp(a) + b, slope - below - above + a

    def log_pdf(self, x):
        stays, moves = x.chunk(2, 1)
        y, log_slope = self.moved(self.numbers(stays), moves)
        normal = -0.5 * (stays.square() + y.square()) - math.log(2 * math.pi)
        return (normal + log_slope).sum((1, 2, 3))

    def sample(self):
        stays, y = torch.randn(images, 2 * half, side, side).chunk(2, 1)
        numbers = self.numbers(stays)
        low, high = torch.full_like(y, -100.0), torch.full_like(y, 100.0)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            under = self.moved(numbers, middle)[0] < y
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        return torch.cat([stays, 0.5 * (low + high)], 1)


def build():
    coupling = Coupling()
    x = torch.randn(images, 2 * half, side, side)

    def step():
        coupling.zero_grad()
        (-coupling.log_pdf(x).mean()).backward()

    def sample():
        with torch.no_grad():
            coupling.sample()

    count = sum(parameter.numel() for parameter in coupling.parameters())
    return {"step": step, "sample": sample}[sizes["what"]], count


serve(build)
