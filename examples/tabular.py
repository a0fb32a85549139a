"""Train a published flow on one of the sets by which density estimators are compared.

    python examples/tabular.py --data moons --model nsf
    python examples/tabular.py --data power --path data/power --model maf --num-blocks 10 --batch-size 512

Stops early by the validation rows, scores the best model on the test rows once, and writes the model, samples and a picture.
"""

import argparse
import json
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.colors import LogNorm
from tabular_data import SOURCES, load

import flows

MODELS = {
    "gaussian": lambda n, hidden, act: flows.Normal(trainable=True, covariance="full"),
    "nice": lambda n, hidden, act: flows.Flow(flows.NICE(n, hidden, act), flows.Logistic()),
    "realnvp": lambda n, hidden, act: flows.Flow(flows.RealNVP(2 * n, hidden, act)),  # a block moves both halves
    "glow": lambda n, hidden, act: flows.Flow(flows.Glow(2 * n, hidden, act)),
    "made": lambda n, hidden, act: flows.Flow(flows.MAF(1, hidden, act, plain=True)),
    "made-mog": lambda n, hidden, act: flows.MixtureMADE(10, hidden, act),
    "maf": lambda n, hidden, act: flows.Flow(flows.MAF(n, hidden, act)),
    "maf-mog": lambda n, hidden, act: flows.Flow(flows.MAF(n, hidden, act), flows.MixtureMADE(10, hidden, act)),
    "nsf": lambda n, hidden, act: flows.Flow(flows.NSF(n, hidden, act)),
    "nsf-ar": lambda n, hidden, act: flows.Flow(flows.NSF(n, hidden, act, autoregressive=True)),
    "naf": lambda n, hidden, act: flows.Flow(flows.NAF(n, hidden, act)),
    "bnaf": lambda n, hidden, act: flows.Flow(flows.BNAF(n)),
    "umnn": lambda n, hidden, act: flows.Flow(flows.UMNN(n, hidden, act)),
    "sos": lambda n, hidden, act: flows.Flow(flows.SOS(n, hidden, act)),
    "gaussianization": lambda n, hidden, act: flows.Flow(flows.GaussianizationFlow(n)),
}

SHOWN = 100_000  # rows in a picture


def score(log_pdf, params, rows, size):
    """The mean log-density of rows and its standard error, in nats."""
    values = np.concatenate([log_pdf(params, rows[i : i + size]) for i in range(0, len(rows), size)])
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def picture(path, data, samples, history, title):
    """Data and samples side by side, in the plane of the two columns that vary together most, and the losses."""
    pair = (0, 1)
    if data.shape[1] > 2:
        strength = np.abs(np.corrcoef(data.T)) - np.eye(data.shape[1])
        pair = np.unravel_index(strength.argmax(), strength.shape)
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    low, high = np.quantile(data[:, pair], [0.001, 0.999], axis=0)
    box = [(a - 0.1 * (b - a), b + 0.1 * (b - a)) for a, b in zip(low, high, strict=True)]
    for axis, rows, name in ((axes[0], data, "training rows"), (axes[1], samples, "as many samples")):
        axis.hist2d(*rows[:, pair].T, bins=100, range=box, cmap="inferno", norm=LogNorm())
        axis.set(title=name, xlabel=f"column {pair[0]}", ylabel=f"column {pair[1]}", facecolor="black")
    axes[2].plot(history["train"], color="#999999", label="train")
    axes[2].plot(history["validation"], color="#2166ac", label="validation")
    axes[2].plot(history["best_epoch"], history["validation"][history["best_epoch"]], "o", color="#d6604d", label="best")
    top = np.quantile(history["validation"], 0.9)
    axes[2].set(title=title, xlabel="epoch", ylabel="loss, nats")
    axes[2].set_ylim(min(history["validation"].min(), history["train"].min()) - 0.05, top + 0.05)
    axes[2].legend(frameon=False)
    axes[2].spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", "--dataset", type=str.lower, default="moons", choices=list(SOURCES))
    parser.add_argument("--path", type=Path, help="the folder with the files of the set")
    parser.add_argument("--model", "--flow", default="maf", choices=list(MODELS))
    parser.add_argument("--num-blocks", type=int, default=5, help="steps of the flow; of couplings, pairs of them")
    parser.add_argument("--hidden", type=int, nargs="+", help="widths of each network; as published by default")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--test-batch-size", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--patience", type=int, default=30, help="epochs without a better validation loss before it stops")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args()

    source, split = SOURCES[options.data], load(options.data, options.path)
    hidden = tuple(options.hidden or (source.width, source.width))
    init_fun = MODELS[options.model](options.num_blocks, hidden, source.activation)
    print(f"{options.data}: {' / '.join(f'{len(part):,}' for part in split)} rows of {source.columns} columns")
    print(f"{init_fun} on {jax.devices()[0].device_kind}")
    start = time.perf_counter()
    result = flows.fit(
        options.seed, init_fun, split.train,
        validation=split.validation, batch_size=options.batch_size, max_epochs=options.epochs, patience=options.patience,
        optimizer=optax.chain(optax.clip_by_global_norm(5.0), optax.adam(options.lr)), standardize=False,
    )  # fmt: skip
    minutes = (time.perf_counter() - start) / 60
    params, log_pdf, sample = result
    nats, error = score(log_pdf, params, split.test, options.test_batch_size)
    epochs, best = len(result.history["train"]), result.history["best_epoch"]
    print(
        f"test: {nats:.3f} +- {2 * error:.3f} nats (twice the standard error), epoch {best} of {epochs}, {minutes:.1f} minutes"
    )

    name = f"{options.data}-{options.model}"
    options.out.mkdir(parents=True, exist_ok=True)
    result.save(options.out / f"{name}.flows", metadata={"data": options.data, "test nats": nats})
    shown = split.train[:SHOWN]
    samples = np.asarray(sample(options.seed, params, len(shown)))
    np.savetxt(options.out / f"{name}.csv", samples[:1000], delimiter=",", fmt="%.6g")
    picture(options.out / f"{name}.png", shown, samples, result.history, f"{name}: {nats:.2f} nats")
    figures = {"nats": nats, "standard error": error, "epochs": epochs, "best epoch": best, "minutes": minutes}
    (options.out / f"{name}.json").write_text(json.dumps({"model": repr(init_fun), **figures}, indent=1))


if __name__ == "__main__":
    main()
