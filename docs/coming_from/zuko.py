import tempfile

import numpy as np
import torch
import zuko

table = np.loadtxt("examples/data/galaxies.csv", delimiter=",", skiprows=1)[:6000]
table[:, 0] = np.log(table[:, 0])  # a redshift is positive
mean, std = table[:4000].mean(0), table[:4000].std(0)
scaled = torch.tensor((table - mean) / std, dtype=torch.float32)
x, c = scaled[:, [0, 4]], scaled[:, 1:4]  # redshift and i, given u, g, r
flow = zuko.flows.NSF(2, context=3, transforms=3, bins=10, hidden_features=(64, 64))
optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
losses, file = [], f"{tempfile.mkdtemp()}/flow.pt"
while len(losses) < 20 + np.argmin(losses or [0]):  # 20 epochs after the best
    for i in torch.randperm(4000).split(256):
        optimizer.zero_grad()
        (-flow(c[i]).log_prob(x[i]).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        losses.append(-flow(c[4000:5000]).log_prob(x[4000:5000]).mean().item())
    if losses[-1] == min(losses):
        torch.save(flow.state_dict(), file)
flow.load_state_dict(torch.load(file))  # the best epoch, into the same model
with torch.no_grad():  # in the units of the data
    log_prob = flow(c[5000:]).log_prob(x[5000:]).numpy() - np.log(std[[0, 4]]).sum()
    draws = flow(c[5000]).sample((1000,)).numpy() * std[[0, 4]] + mean[[0, 4]]
draws[:, 0] = np.exp(draws[:, 0])
print(f"{(log_prob - table[5000:, 0]).mean():.3f} nats a row, draws {draws.shape}")
