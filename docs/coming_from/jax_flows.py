import pickle
import tempfile

import jax
import numpy as np
from jax.example_libraries import optimizers

import flows

table = np.loadtxt("examples/data/galaxies.csv", delimiter=",", skiprows=1)[:6000]
table = table[:, [0, 4, 1, 2, 3]]  # redshift, i, u, g, r
table[:, 0] = np.log(table[:, 0])  # a redshift is positive
mean, std = table[:4000].mean(0), table[:4000].std(0)
rows, fits = np.float32((table - mean) / std), []
layers = flows.NeuralSplineCoupling(K=10, B=5, hidden_dim=64), flows.Shuffle()
init_fun, rng = flows.Flow(flows.Serial(*layers * 3)), jax.random.PRNGKey(0)
opt_init, opt_update, get_params = optimizers.adam(step_size=1e-3)
for X in (rows, rows[:, 2:]):  # there is no context: p(a | b) = p(a, b) / p(b)
    params, log_pdf, sample = init_fun(rng, X.shape[1])
    loss = jax.jit(jax.value_and_grad(lambda p, X, f=log_pdf: -f(p, X).mean()))
    state, losses, update = opt_init(params), [], jax.jit(opt_update)
    while len(losses) < 20 + np.argmin(losses or [0]):  # 20 epochs after the best
        for i in np.split(np.random.permutation(4000), 16):
            state = update(len(losses), loss(get_params(state), X[i])[1], state)
        losses.append(loss(get_params(state), X[4000:5000])[0])
        params = get_params(state) if losses[-1] == min(losses) else params
    fits.append((log_pdf(params, X[5000:]), sample(rng, params, 1000), params))
log_prob = fits[0][0] - fits[1][0] - np.log(std[:2]).sum() - table[5000:, 0]
draws = np.asarray(fits[0][1]) * std + mean  # of all columns, not given some
draws[:, 0] = np.exp(draws[:, 0])
print(f"{log_prob.mean():.3f} nats a row, draws {draws.shape}")
with tempfile.TemporaryFile() as file:
    pickle.dump([params for _, _, params in fits], file)  # without their models
