import tempfile

import numpy as np

import flows

table = np.loadtxt("examples/data/galaxies.csv", delimiter=",", skiprows=1)[:6000]
rows, context = table[:, [0, 4]], table[:, 1:4]  # redshift and i, given u, g, r
train, valid, test = slice(0, 4000), slice(4000, 5000), slice(5000, 6000)

result = flows.fit(
    0,
    flows.Flow(flows.NSF(3, hidden=(64, 64))),
    rows[train],
    context=context[train],
    validation=(rows[valid], context[valid]),
    support=[(0, None), (None, None)],  # a redshift is positive
    verbose=0,
)
log_prob = result.log_prob(rows[test], context=context[test])
draws = result.draw(1, 1000, context=context[5000])
print(f"{log_prob.mean():.3f} nats a row, draws {draws.shape}")
with tempfile.TemporaryDirectory() as folder:
    result.save(f"{folder}/galaxies.flows")
    again = flows.load(f"{folder}/galaxies.flows")  # model, params, bounds and history
