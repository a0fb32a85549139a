"""Every family of flows on six shapes in the plane: sheets of densities, with what each one costs.

    python examples/gallery.py [--models NSF MAF ...] [--shapes Rings ...] [--rows 20000] [--seconds 8] [--cells]

The true densities are known, so each cell has a figure that needs no other model: how many nats a row the fit is behind the
truth on 10,000 new rows. Beside each model stand its trained numbers and the processor seconds of a fit, compiling included.
Models are the library's defaults where nothing else is said at their names. A fit may take --seconds of a processor, and three
times as long where a density is slow (residual and continuous flows, IAF, UMNN); as many epochs are planned as go into that, so
that the learning rate reaches its end in time. All of them take some 30 minutes of one core with 8 seconds, 20 with 4. What
is fitted is kept in gallery/*.npz: a run that is interrupted, called again, goes on, and fits nothing twice. Prints the table,
writes gallery-1.png, gallery-2.png, ..., one sheet for a slide each; with --cells a picture of each model and of the truth,
gallery/*.png, and all figures, gallery.json.

Pictures:
    gallery-1.png: A sheet of small pictures, a row for each coupling, residual and determinant-lemma model and a column for
        each of six shapes: the densities that were fitted, beneath each how far it is behind the truth.
    gallery-2.png: A sheet of the same for eight autoregressive models and Gaussianization: their densities of six shapes,
        beneath each how far it is behind the truth.
    gallery-3.png: A sheet of the same for continuous models and three references, a kernel density, a mixture and a normal:
        their densities of six shapes, beneath each how far it is behind the truth.
"""

import argparse
import functools
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from gallery_pictures import draw_panels, draw_sheets, first_fit, number

import flows
from flows import Flow

SHAPES = {  # and what they are called in prose
    "TwoMoons": "two moons",
    "EightGaussians": "eight Gaussians",
    "Checkerboard": "a checkerboard",
    "Rings": "rings",
    "Spirals": "spirals",
    "Pinwheel": "a pinwheel",
}
TEST, SIDE, PIECE = 10_000, 160, 8_900  # new rows; points along a side of the grid; rows scored at once
MOST_EPOCHS = 200
LONG = 3  # times --seconds, where the density is slow: derivatives, integrals, equations, one feature after the other


class Model(NamedTuple):
    init_fun: Any
    note: str = ""  # what is not the default
    longer: int = 1
    objective: Any = None
    finer: int | None = None  # steps by which it is scored, if others than those of training


def by_likelihood(constructor: Any) -> Model:
    """Four steps in training, twelve for the scores, which would otherwise reward what the solver gets wrong."""
    return Model(Flow(constructor(activation="tanh", solver="rk4", steps=4)), "tanh units, 4 steps", LONG, finer=12)


in_pairs = functools.partial(flows.objectives.flow_matching, pairing="optimal transport")

MODELS = {
    "coupling": {
        "NICE": Model(Flow(flows.NICE(8), flows.Logistic()), "8 layers, logistic base"),
        "RealNVP": Model(Flow(flows.RealNVP())),
        "Glow": Model(Flow(flows.Glow())),
        "NSF-couplings": Model(Flow(flows.NSF(autoregressive=False)), "coupling splines"),
    },
    "residual": {
        "IResNet": Model(Flow(flows.IResNet(activation="lipswish")), "lipswish units", LONG),
        "ResidualFlow": Model(Flow(flows.ResidualFlow()), "unbiased log-det", LONG),
    },
    "determinant lemma": {
        "Planar": Model(Flow(flows.Repeat(flows.Planar(), 32)), "32 layers"),
        "Radial": Model(Flow(flows.Repeat(flows.Radial(), 32)), "32 layers"),
        "Sylvester": Model(Flow(flows.Repeat(flows.Sylvester(2), 32)), "32 layers of rank 2"),
    },
    "autoregressive": {
        "MAF": Model(Flow(flows.MAF())),
        "IAF": Model(Flow(flows.IAF(plain=True)), "affine updates", LONG),
        "NSF": Model(Flow(flows.NSF()), "splines"),
        "NAF": Model(Flow(flows.NAF())),
        "BNAF": Model(Flow(flows.BNAF())),
        "SOS": Model(Flow(flows.SOS(3)), "3 layers"),
        "UMNN": Model(Flow(flows.UMNN(3, (64, 64), integrand=(24, 24), num_nodes=10)), "3 layers, 10 nodes", LONG),
        "MixtureMADE": Model(flows.MixtureMADE()),
    },
    "rotations and marginals": {"Gaussianization": Model(Flow(flows.GaussianizationFlow()))},
    "continuous, by likelihood": {"FFJORD": by_likelihood(flows.FFJORD), "RNODE": by_likelihood(flows.RNODE)},
    "continuous, by flow matching": {
        "Matching": Model(Flow(flows.Continuous(steps=8)), "8 steps", objective=flows.objectives.flow_matching),
        "Matching-pairs": Model(Flow(flows.Continuous(steps=8)), "8 steps, optimal pairs", objective=in_pairs),
    },
    "for reference": {
        "KernelDensity": Model(flows.KernelDensity(), "2,000 points"),
        "GMM": Model(flows.GMM(num_components=20), "20 components"),
        "Normal": Model(flows.Normal(trainable=True, covariance="full"), "full covariance"),
    },
}
TITLES = {"NSF-couplings": "NSF", "Matching": "Continuous", "Matching-pairs": "Continuous"}
REFERENCE = "for reference"  # which are in no contest


class Shape(NamedTuple):
    rows: np.ndarray
    test: np.ndarray
    truth: np.ndarray  # log-densities of test
    grid: np.ndarray
    image: np.ndarray  # the true density on the grid
    extent: float  # of the square of the grid


def shape_of(name, num_rows):
    target = getattr(flows.datasets, name)()(0, 2)
    rows, test = (np.asarray(target.sample(seed, target.params, n)) for seed, n in ((1, num_rows), (2, TEST)))
    middle = (test.max(0) + test.min(0)) / 2
    reach = 1.06 * np.abs(test - middle).max()
    axis = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    grid = (middle + reach * np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)).astype(np.float32)
    truth, on_grid = (np.asarray(target.log_pdf(target.params, each)) for each in (test, grid))
    return Shape(rows, test, truth, grid, np.exp(on_grid).reshape(SIDE, SIDE), 2 * reach)


def log_densities(distribution, params, rows):
    """In pieces of one length, which compile once."""
    padded = np.concatenate([rows, rows[: -len(rows) % PIECE]])
    pieces = [distribution.log_pdf(params, piece) for piece in padded.reshape(-1, PIECE, 2)]
    return np.concatenate(pieces)[: len(rows)]


def fit(model, rows, seconds, **options):
    """A fit of at most some seconds, the seconds of an epoch, and of all with compiling; by the clock of the processor, as that
    on the wall goes on while others have the machine."""
    at, start = [], time.process_time()

    def late(_):
        at.append(time.process_time())
        return at[-1] - start > seconds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fit of few epochs could go on, or ends behind a Gaussian: the page shows it
        result = flows.fit(
            0, model.init_fun, rows, objective=model.objective, validation=0.1, verbose=0, callbacks=[late], **options
        )
    an_epoch = (at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else 0.0  # nothing may train
    return result, an_epoch, time.process_time() - start


def fitted(model, shape, seconds, an_epoch):
    """The density on the grid, and figures."""
    epochs = int(np.clip(seconds / max(an_epoch, 1e-3), 2, MOST_EPOCHS))
    result, an_epoch, spent = fit(model, shape.rows, 1.3 * seconds, max_epochs=epochs, patience=epochs)
    scorer = result if model.finer is None else flows.revise(result.init_fun, steps=model.finer)(0, 2)
    scores = log_densities(scorer, result.params, np.concatenate([shape.test, shape.grid]))
    trains = jax.tree.map(lambda leaf, own: np.size(leaf) * own, result.params, flows.trainable(result.params))
    image, behind = scores[TEST:].reshape(SIDE, SIDE), shape.truth - scores[:TEST]
    return {
        "log_density": image,
        "behind": behind.mean(),
        "error": behind.std() / TEST**0.5,
        "numbers": sum(jax.tree.leaves(trains)),
        "seconds": spent,
        "epochs": len(result.history["train_loss"]),
        "an_epoch": an_epoch,
        "mass": np.exp(image).sum() * (shape.extent / SIDE) ** 2,
    }


def kept(path, settings):
    """What a file holds, if it is a cell of these settings."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file) if str(file["settings"]) == settings else None
    except (OSError, ValueError, KeyError, EOFError):
        return None


def keep(path, cell):
    """Whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(file, **cell)
    os.replace(part, path)


def cells_of(name, model, shapes, options):
    """The cells of a row, by the names of the shapes."""
    cells, compiling, an_epoch = {}, None, 0.0
    for title, shape in shapes.items():
        path = options.out / "gallery" / f"{name}-{title}.npz"
        seconds = model.longer * options.seconds
        settings = f"{model.init_fun!r}, {options.rows} rows, {seconds:g} seconds"
        cell = kept(path, settings)
        if cell is None:
            if compiling is None:
                _, an_epoch, compiling = fit(model, shape.rows, np.inf, max_epochs=2)
            cell = fitted(model, shape, seconds, an_epoch) | {"compiling": compiling, "settings": settings}
            an_epoch = float(cell["an_epoch"])  # as others may use the machine, too
            keep(path, cell)
        cells[title] = cell
    return cells


def figures_of(group, name, cells):
    """What is told of a model, by shape: nats a row behind the truth and their standard errors, the processor seconds of a fit,
    epochs, and the mass that its density has in the square; `compiling` is what a first fit takes more."""
    found = {"family": group, "title": TITLES.get(name, name), "note": MODELS[group][name].note}
    found |= {"model": repr(MODELS[group][name].init_fun), "numbers": max(int(cell["numbers"]) for cell in cells.values())}
    found["compiling"] = round(max(float(cell["compiling"]) for cell in cells.values()), 1)
    for key, digits in {"behind": 4, "error": 4, "seconds": 1, "epochs": 0, "mass": 3}.items():
        found[key] = {title: round(float(cell[key]), digits or None) for title, cell in cells.items()}
    return found


def alt_of(of):
    """What the picture of a model shows, for those who do not see it."""
    kind = f"{of['title']} ({of['note']})" if of["note"] else of["title"]
    best, worst = (pick(of["behind"], key=of["behind"].get) for pick in (min, max))
    told = f"nearest to the truth on {SHAPES[best]}, {number(of['behind'][best])} nats a row behind it"
    if best != worst:
        told += f", and farthest on {SHAPES[worst]}, {number(of['behind'][worst])}"
    return f"Densities of {kind}, fitted to {', '.join(SHAPES[each] for each in of['behind'])}: {told}."


def main():
    every = [name for models in MODELS.values() for name in models]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=every, choices=every, metavar="MODEL", help=", ".join(every))
    parser.add_argument("--shapes", nargs="+", default=SHAPES, choices=SHAPES, metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("--rows", type=int, default=20_000, help="of each shape, to fit")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a fit")
    parser.add_argument("--cells", action="store_true", help="a picture of each model, too, and gallery.json")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture and the cells")
    options = parser.parse_args()
    if options.rows < 1_000 or not options.seconds > 0:
        parser.error("expected 1,000 rows or more, and seconds above 0")
    (options.out / "gallery").mkdir(parents=True, exist_ok=True)
    shapes = {name: shape_of(name, options.rows) for name in SHAPES if name in options.shapes}
    print("nats a row behind the truth, trained numbers, processor seconds of a first fit\n")
    print(f"{'':16}" + "".join(f"{name:>15}" for name in shapes) + f"{'numbers':>10}{'seconds':>9}")
    figures, densities, off = {}, {}, []
    for group, models in MODELS.items():
        for name in [each for each in models if each in options.models]:
            cells = cells_of(name, models[name], shapes, options)
            of = figures[name] = figures_of(group, name, cells)
            densities[name] = {title: np.exp(cell["log_density"]) for title, cell in cells.items()}
            behind = "".join(f"{each:15.3f}" if abs(each) < 1e4 else f"{each:15.1e}" for each in of["behind"].values())
            print(f"{name:16}{behind}{of['numbers']:10,}{first_fit(of):9.1f}", flush=True)
    off = [
        f"{name} on {title}: {mass:.3f}" for name, of in figures.items() for title, mass in of["mass"].items() if mass > 1.01
    ]
    if off:
        print("\nmass of what integrates to more than 1.01: " + "; ".join(off))
    limits = f"{options.seconds:g} s of training, {LONG * options.seconds:g} s where a density is slow"
    sheets = draw_sheets(options.out, shapes, figures, densities, f"{options.rows:,} rows in {limits}", REFERENCE)
    if options.cells:
        truth = f"The true densities of {', '.join(SHAPES[each] for each in shapes)}, with their mean log-densities."
        means = {title: shape.truth.mean() for title, shape in shapes.items()}
        draw_panels(options.out / "gallery" / "truth.png", shapes, {t: s.image for t, s in shapes.items()}, means, truth)
        for name, of in figures.items():
            draw_panels(options.out / "gallery" / f"{name}.png", shapes, densities[name], of["behind"], alt_of(of))
        told = {
            "rows": options.rows,
            "seconds": options.seconds,
            "truth": {title: round(float(mean), 4) for title, mean in means.items()},
        }
        (options.out / "gallery.json").write_text(json.dumps(told | {"models": figures}, indent=1) + "\n")
    print(f"\nwrote {', '.join(sheets)}{' and pictures of the models' if options.cells else ''} to {options.out}/")


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)  # a program kept from a former run would cost nothing here
    sys.exit(main())
