import tempfile

import numpy as np
import torch
from nflows import distributions, flows, transforms

table = np.loadtxt("examples/data/galaxies.csv", delimiter=",", skiprows=1)[:6000]
table[:, 0] = np.log(table[:, 0])  # a redshift is positive
mean, std = table[:4000].mean(0), table[:4000].std(0)
scaled = torch.tensor((table - mean) / std, dtype=torch.float32)
x, c = scaled[:, [0, 4]], scaled[:, 1:4]  # redshift and i, given u, g, r
options = {"context_features": 3, "num_bins": 10, "tails": "linear", "tail_bound": 5}
spline, layers = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform, []
for _ in range(3):
    layers += [spline(2, 64, **options), transforms.ReversePermutation(2)]
normal = distributions.StandardNormal([2])
flow = flows.Flow(transforms.CompositeTransform(layers), normal)
optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
losses, file = [], f"{tempfile.mkdtemp()}/flow.pt"
while len(losses) < 20 + np.argmin(losses or [0]):  # 20 epochs after the best
    for i in torch.randperm(4000).split(256):
        optimizer.zero_grad()
        (-flow.log_prob(x[i], c[i]).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        losses.append(-flow.log_prob(x[4000:5000], c[4000:5000]).mean().item())
    if losses[-1] == min(losses):
        torch.save(flow.state_dict(), file)
flow.load_state_dict(torch.load(file))  # the best epoch, into the same model
with torch.no_grad():  # in the units of the data
    log_prob = flow.log_prob(x[5000:], c[5000:]).numpy() - np.log(std[[0, 4]]).sum()
    draws = flow.sample(1000, c[5000:5001])[0].numpy() * std[[0, 4]] + mean[[0, 4]]
draws[:, 0] = np.exp(draws[:, 0])
print(f"{(log_prob - table[5000:, 0]).mean():.3f} nats a row, draws {draws.shape}")
