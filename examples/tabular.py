"""Train a published flow on one of the sets by which density estimators are compared.

    python examples/tabular.py --data moons --model nsf
    python examples/tabular.py --data power --path data/power --model maf --num-blocks 10 --batch-size 512
    python examples/tabular.py --data moons --model maf-split --watch       # and an animation of what it draws

Stops early by the validation rows, scores the best model on the test rows once, and writes the model, samples and a picture.

Pictures:
    moons-nsf.png: Training rows in two moons; as many samples of the flow, hardly any of them between these; and the losses
        of training and validation by epoch.
"""

import argparse
import inspect
import json
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import optax
from scipy.spatial import cKDTree
from style import BLUE, ORANGE, plt
from tabular_data import SOURCES, load, moon_labels
from watch import Watch

import flows


def split(blocks, hidden, between):
    """A MAF with a network of tanh for the scales and one of ReLU for the shifts."""
    nets = [flows.conditioners.MaskedMLP(*hidden, activation=activation) for activation in ("tanh", "relu")]
    return flows.Flow(flows.Serial(*(flows.MADE(*nets), flows.BatchNorm(), between) * blocks))


# By the options that each has.
MODELS = {
    "gaussian": lambda: flows.Normal(trainable=True, covariance="full"),
    "nice": lambda blocks, hidden, activation: flows.Flow(flows.NICE(blocks, hidden, activation), flows.Logistic()),
    "realnvp": lambda blocks, hidden, activation: flows.Flow(flows.RealNVP(blocks, hidden, activation)),
    "glow": lambda blocks, hidden, activation: flows.Flow(flows.Glow(blocks, hidden, activation)),
    "made": lambda hidden, activation: flows.Flow(flows.MADE(flows.conditioners.MaskedMLP(*hidden, activation=activation))),
    "made-mog": lambda hidden, activation: flows.MixtureMADE(10, hidden, activation),
    "maf": lambda blocks, hidden, activation: flows.Flow(flows.MAF(blocks, hidden, activation)),
    "maf-mog": lambda blocks, hidden, activation: flows.Flow(
        flows.MAF(blocks, hidden, activation), flows.MixtureMADE(10, hidden, activation)
    ),
    "maf-split": lambda blocks, hidden: split(blocks, hidden, flows.Reverse()),
    "maf-split-glow": lambda blocks, hidden: split(blocks, hidden, flows.InvertibleLinear()),
    "nsf": lambda blocks, hidden, activation: flows.Flow(
        flows.NSF(blocks, hidden, activation, num_bins=8, bound=3.0, autoregressive=False, linear=True)
    ),
    "nsf-ar": lambda blocks, hidden, activation: flows.Flow(
        flows.NSF(blocks, hidden, activation, num_bins=8, bound=3.0, linear=True)
    ),
    "naf": lambda blocks, hidden, activation: flows.Flow(flows.NAF(blocks, hidden, activation)),
    "bnaf": lambda blocks, units: flows.Flow(flows.BNAF(blocks, units)),
    "umnn": lambda blocks, hidden, activation: flows.Flow(flows.UMNN(blocks, hidden, activation)),
    "sos": lambda blocks, hidden, activation: flows.Flow(flows.SOS(blocks, hidden, activation)),
    "gaussianization": lambda blocks: flows.Flow(flows.GaussianizationFlow(blocks)),
}
RATES = {"gaussian": 1e-3, "made": 1e-3, "made-mog": 1e-3}  # as published; 1e-4 for flows

SHOWN, FRAME = 100_000, 3_000  # rows in a picture, and in one of an animation


def score(log_pdf, params, rows, size, context=None):
    """The mean log-density of rows and its standard error, in nats."""
    given = [{} if context is None else {"context": context[i : i + size]} for i in range(0, len(rows), size)]
    values = np.concatenate([log_pdf(params, rows[i * size : (i + 1) * size], **each) for i, each in enumerate(given)])
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def alone(data, samples):
    """The share of samples that are farther from the nearest row than all but 5 of 10,000 rows are."""
    tree = cKDTree(data)
    return (tree.query(samples)[0] > np.quantile(tree.query(data, 2)[0][:, 1], 0.9995)).mean()


def plane(data):
    """The two columns that vary together most, and the ends of what is drawn of them."""
    pair = (0, 1)
    if data.shape[1] > 2:
        strength = np.abs(np.corrcoef(data.T)) - np.eye(data.shape[1])
        pair = np.unravel_index(strength.argmax(), strength.shape)
    low, high = np.quantile(data[:, pair], [0.001, 0.999], axis=0)
    return pair, [(a - 0.1 * (b - a), b + 0.1 * (b - a)) for a, b in zip(low, high, strict=True)]


def points(axis, rows, colour, plane, title):
    (first, second), (across, upwards) = plane
    axis.plot(rows[:, first], rows[:, second], ".", color=colour, ms=2, alpha=0.5, markeredgewidth=0, rasterized=True)
    names = {"xlabel": f"column {first}, standardised", "ylabel": f"column {second}, standardised"}
    axis.set(title=title, xlim=across, ylim=upwards, **names)


def picture(path, data, samples, history, title):
    """Data and samples side by side, in the plane of the two columns that vary together most, and the losses."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.8))
    own = plane(data)
    far = alone(data[:, own[0]], samples[:, own[0]])
    points(axes[0], data, BLUE, own, f"{len(data):,} training rows")
    points(axes[1], samples, ORANGE, own, f"as many samples, {far:.2%} of\nthem where no rows are")
    history.plot(axes[2])
    axes[2].set(title=title)
    figure.savefig(path)
    plt.close(figure)


def epochs_of(data, given, seed):
    """A function that draws samples of the best model so far, of the same noise after each epoch."""
    own = plane(data)

    def draw(epoch, path):
        params, _, sample = epoch.best()
        figure, axis = plt.subplots(figsize=(4.5, 4.5))
        points(axis, np.asarray(sample(seed, params, len(data), **given)), ORANGE, own, f"epoch {epoch.number + 1}")
        figure.savefig(path)
        plt.close(figure)

    return draw


def positive(kind):
    """An option's number, refused before anything is trained."""

    def number(text):
        if not 0 < (value := kind(text)) < float("inf"):
            raise ValueError(text)
        return value

    number.__name__ = f"{'whole ' if kind is int else ''}number above 0"
    return number


def model_of(options, source, parser):
    """The constructor's value; options that the model does not have are refused."""
    make = MODELS[options.model]
    takes = inspect.signature(make).parameters
    if options.num_blocks and "blocks" not in takes:
        parser.error(f"--num-blocks: {options.model} has none; leave it out")
    if options.hidden and not {"hidden", "units"} & set(takes):
        parser.error(f"--hidden: {options.model} has no network; leave it out")
    given = {
        "blocks": options.num_blocks or 5, "hidden": tuple(options.hidden or (source.width, source.width)),
        "units": tuple(options.hidden or (10,)), "activation": source.activation,
    }  # fmt: skip
    return make(**{name: given[name] for name in takes})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    whole, above_0 = positive(int), positive(float)
    parser.add_argument("--data", "--dataset", type=str.lower, default="moons", choices=list(SOURCES))
    parser.add_argument("--path", type=Path, help="the folder with the files of the set")
    parser.add_argument("--model", "--flow", default="maf", choices=list(MODELS))
    parser.add_argument("--num-blocks", type=whole, help="layers of the flow (5)")
    parser.add_argument("--hidden", type=whole, nargs="+", help="widths of each network, as published by default; of bnaf, "
                        "units for each feature (10)")  # fmt: skip
    parser.add_argument("--batch-size", type=whole, default=100)
    parser.add_argument("--test-batch-size", type=whole, default=10_000)
    parser.add_argument("--epochs", type=whole, help="at most (1000; of moons 40)")
    parser.add_argument("--patience", type=whole, default=30, help="epochs without a better validation loss before it stops")
    parser.add_argument("--lr", type=above_0, help="learning rate (1e-4; of gaussian, made and made-mog 1e-3; of moons 3e-3, "
                        "and down to 0 by a cosine)")  # fmt: skip
    parser.add_argument("--weight-decay", type=float, default=1e-6)
    parser.add_argument("--cond", action="store_true", help="given the class of each row; moons alone has classes")
    parser.add_argument("--log-interval", type=whole, help="epochs between two lines with the losses, in place of a bar")
    parser.add_argument("--watch", action="store_true", help="draw after each epoch, and write an animation: DATA-MODEL.webp")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-cuda", action="store_true", help="on the processor, even if there is a GPU")
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args()
    if options.cond and options.data != "moons":
        parser.error(f"--cond: the rows of {options.data} have no classes; leave it out")
    if options.no_cuda:
        jax.config.update("jax_platforms", "cpu")

    source = SOURCES[options.data]
    init_fun, split = model_of(options, source, parser), load(options.data, options.path)
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{options.data}: {' / '.join(f'{len(part):,}' for part in split)} rows of {source.columns} columns")
    print(f"{init_fun} on {jax.devices()[0].device_kind}")
    labels = moon_labels() if options.cond else None

    def line(epoch):
        if epoch.number % options.log_interval == 0:
            print(
                f"epoch {epoch.number}: train {epoch.train_loss:.3f}, validation {epoch.validation_loss:.3f} nats", flush=True
            )

    name = f"{options.data}-{options.model}{'-cond' * options.cond}"
    shown = split.train[:SHOWN]
    given = {} if labels is None else {"context": labels.train[: len(shown)]}
    few = {key: rows[:FRAME] for key, rows in given.items()}
    frames, watch = options.out / "epochs" / name, None
    if options.watch:
        shutil.rmtree(frames, ignore_errors=True)  # of a run before
        watch = Watch(frames, epochs_of(shown[:FRAME], few, options.seed))
    start = time.perf_counter()
    epochs, rate = options.epochs or source.epochs, options.lr or source.rate or RATES.get(options.model, 1e-4)
    if source.rate:
        rate = optax.cosine_decay_schedule(rate, epochs * (len(split.train) // options.batch_size))
    result = flows.fit(
        options.seed, init_fun, split.train,
        context=labels and labels.train, validation=(split.validation, labels.validation) if labels else split.validation,
        callbacks=[line] * bool(options.log_interval) + [watch] * bool(watch), verbose=0 if options.log_interval else 1,
        batch_size=options.batch_size, max_epochs=epochs, patience=options.patience,
        optimizer=optax.chain(
            optax.clip_by_global_norm(5.0), optax.add_decayed_weights(options.weight_decay), optax.adam(rate)
        ), standardize=False,
    )  # fmt: skip
    minutes = (time.perf_counter() - start) / 60
    params, log_pdf, sample = result
    result.save(options.out / f"{name}.flows", metadata={"data": options.data})
    nats, error = score(log_pdf, params, split.test, options.test_batch_size, labels and labels.test)
    epochs, best = len(result.history["train_loss"]), result.history["best_epoch"]
    print(
        f"test: {nats:.3f} +- {2 * error:.3f} nats (twice the standard error), epoch {best} of {epochs}, {minutes:.1f} minutes"
    )

    figures = {"nats": nats, "standard error": error, "epochs": epochs, "best epoch": best, "minutes": minutes}
    (options.out / f"{name}.json").write_text(json.dumps({"model": repr(init_fun), **figures}, indent=1))
    samples = np.asarray(sample(options.seed, params, len(shown), **given))
    np.savetxt(options.out / f"{name}.csv", samples[:1000], delimiter=",", fmt="%.6g")
    picture(options.out / f"{name}.png", shown, samples, result.history, f"{name}: {nats:.2f} nats")
    if watch:
        watch.animate(options.out / f"{name}.webp")


if __name__ == "__main__":
    flows.keep_programs()
    main()
