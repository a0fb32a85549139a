"""Every family of flows on six shapes in the plane: one page of densities, with what each one costs.

    python examples/gallery.py [--models NSF MAF ...] [--shapes Rings ...] [--rows 20000] [--seconds 8] [--out out]

The true densities are known, so each cell has a figure that needs no other model: how many nats a row the fit is behind the
truth on 10,000 new rows. Beside each model stand its trained numbers and the processor seconds of a fit, compiling included.
Models are the library's defaults where nothing else is said at their names. A fit may take --seconds, and three times as long
where a density is slow (residual and continuous flows, IAF, UMNN); as many epochs are planned as go into that, so that the
learning rate reaches its end in time. The whole page takes some 30 minutes of one core with 8 seconds, 20 with 4. Cells are
kept in gallery/*.npz: a run that is interrupted, called again, goes on, and makes no cell twice. Prints the table, writes
gallery.png.
"""

import argparse
import functools
import itertools
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import flows
from flows import Flow

SHAPES = ("TwoMoons", "EightGaussians", "Checkerboard", "Rings", "Spirals", "Pinwheel")
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
REFERENCE = "for reference"


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


def fit(model, rows, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fit of few epochs could go on, or ends behind a Gaussian: the page shows it
        return flows.fit(0, model.init_fun, rows, objective=model.objective, validation=0.1, verbose=0, **options)


def first_epochs(model, rows):
    """Two epochs: the processor seconds with compiling, and the seconds that an epoch takes after that."""
    at, start = [], time.process_time()
    fit(model, rows, max_epochs=2, callbacks=[lambda epoch: at.append(epoch.seconds)])
    return time.process_time() - start, at[1] - at[0] if len(at) == 2 else 0.0


def fitted(model, shape, seconds, an_epoch):
    """The density on the grid, and figures."""
    epochs = int(np.clip(seconds / max(an_epoch, 1e-3), 2, MOST_EPOCHS))
    start = time.process_time()
    result = fit(model, shape.rows, max_epochs=epochs, patience=epochs, max_minutes=1.3 * seconds / 60)
    spent = time.process_time() - start
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
        "an_epoch": result.seconds / max(1, len(result.history["train_loss"])),
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
                compiling, an_epoch = first_epochs(model, shape.rows)
            cell = fitted(model, shape, seconds, an_epoch) | {"compiling": compiling, "settings": settings}
            an_epoch = float(cell["an_epoch"])  # as others may use the machine, too
            keep(path, cell)
        cells[title] = cell
    return cells


def cost_of(cells):
    """Trained numbers, and the processor seconds of a first fit in the mean over shapes."""
    seconds = np.mean([float(cell["seconds"]) + float(cell["compiling"]) for cell in cells.values()])
    return max(int(cell["numbers"]) for cell in cells.values()), seconds


# The page. Lengths are inches, from the top left corner.
PAGE, INK, PALE, FAINT, ACCENT = "#0c0b14", "#f2eff7", "#a49fb5", "#3a3647", "#fcae6b"
COLORS = "magma"
CELL, GAP, BELOW, NAMES, HEADING, BETWEEN, EDGE, HEAD = 1.0, 0.06, 0.25, 1.62, 0.42, 0.6, 0.5, 1.5
SMALL, MIDDLE = 8.5, 11  # points
TITLES = {"NSF-couplings": "NSF", "Matching": "Continuous", "Matching-pairs": "Continuous"}


def blocks_of(groups, across):
    """Groups in columns of the page, in their order, and the size of the page, which is to be about 16:9."""
    names, layouts = list(groups), []

    def height(block):
        return sum(HEADING + len(groups[name]) * (CELL + BELOW) for name in block)

    for columns in range(1, min(3, len(names)) + 1):
        width = max(9.0, 2 * EDGE + columns * across + (columns - 1) * BETWEEN)
        for cut in itertools.combinations(range(1, len(names)), columns - 1):
            blocks = [names[a:b] for a, b in itertools.pairwise((0, *cut, len(names)))]
            tall = HEAD + HEADING + CELL + BELOW + max(map(height, blocks)) + EDGE
            layouts.append((abs(np.log(width / tall * 9 / 16)), blocks, width, tall))
    return min(layouts)[1:]


def shade(density, top):
    """The square root shows what is faint, too."""
    return np.sqrt(np.clip(np.nan_to_num(density) / top, 0, 1))


def picture(path, groups, shapes, options):
    pitch = CELL + GAP
    across = NAMES + len(shapes) * pitch
    blocks, width, tall = blocks_of(groups, across)
    figure = plt.figure(figsize=(width, tall), facecolor=PAGE)
    page = figure.add_axes((0, 0, 1, 1))
    page.axis("off")
    colors = matplotlib.colormaps[COLORS]
    tops = {title: np.quantile(shape.image, 0.998) for title, shape in shapes.items()}
    contest = [cells for group, models in groups.items() if group != REFERENCE for cells in models.values()]
    best = {title: min((float(each[title]["behind"]) for each in contest), default=np.nan) for title in shapes}

    def write(x, y, text, size, color=PALE, **more):
        page.text(x, y, text, fontsize=size, color=color, **{"va": "center", **more})

    def panel(x, y, density, top):
        page.imshow(
            colors(shade(density, top)), extent=(x, x + CELL, y + CELL, y), origin="lower", interpolation="bilinear", zorder=2
        )

    def row(x, y, name, lines, densities, figures):
        top = y + CELL / 2 - 0.09 * len(lines)
        write(x, top, name, 12, INK, weight="bold")
        for i, line in enumerate(lines):
            write(x, top + 0.22 + 0.17 * i, line, SMALL)
        for i, (title, density) in enumerate(densities.items()):
            left = x + NAMES + i * pitch
            panel(left, y, density, tops[title])
            text, strong = figures[title]
            style = {"color": ACCENT, "weight": "bold"} if strong else {}
            write(left + CELL / 2, y + CELL + 0.11, text.replace("-", "\N{MINUS SIGN}"), SMALL, ha="center", **style)

    write(EDGE, 0.58, "Six shapes, every family", 28, INK, weight="bold")
    limit = f"{options.seconds:g} s of training, {LONG * options.seconds:g} s where a density is slow"
    write(EDGE, 1.03, f"Densities fitted to {options.rows:,} rows in {limit}; beside each the cost of a first fit.", MIDDLE)
    write(
        EDGE,
        1.24,
        "Below: nats a row behind the truth, on 10,000 new rows; the best of a shape in colour, references aside.",
        MIDDLE,
    )
    bar = width - EDGE - GAP - 2.4
    if width > 12:
        page.imshow(colors(np.linspace(0, 1, 256))[None], extent=(bar, bar + 2.4, 0.68, 0.54), zorder=2)
        write(bar, 0.4, "density, by its square root", SMALL)
        write(bar, 0.82, "0", SMALL)
        write(bar + 2.4, 0.82, "the truth's highest", SMALL, ha="right")
    for i, block in enumerate(blocks):
        x, y = EDGE + i * (across + BETWEEN), HEAD + HEADING
        for j, title in enumerate(shapes):
            words = "".join(f" {letter}" if letter.isupper() else letter for letter in title).strip()
            write(x + NAMES + j * pitch + CELL / 2, y - 0.14, words, SMALL + 0.5, INK, ha="center")
        truth = {title: (f"{shape.truth.mean():.2f}", False) for title, shape in shapes.items()}
        row(x, y, "The truth", ("below: its mean", "log-density, nats"), {t: s.image for t, s in shapes.items()}, truth)
        y += CELL + BELOW
        for group in block:
            page.plot([x, x + across - GAP], [y + 0.1] * 2, color=FAINT, linewidth=0.8)
            write(x, y + 0.25, group.upper(), SMALL, ACCENT)
            y += HEADING
            for name, cells in groups[group].items():
                numbers, seconds = cost_of(cells)
                note = MODELS[group][name].note
                lines = [f"{numbers:,} parameters" if numbers else "nothing trained", f"{seconds:.0f} s"]
                behind = {title: float(cell["behind"]) for title, cell in cells.items()}
                figures = {
                    title: (f"{each:.2f}" if each < 100 else "> 99", group != REFERENCE and each == best[title])
                    for title, each in behind.items()
                }
                densities = {title: np.exp(cell["log_density"]) for title, cell in cells.items()}
                row(x, y, TITLES.get(name, name), [*([note] if note else []), *lines], densities, figures)
                y += CELL + BELOW
    page.set(xlim=(0, width), ylim=(tall, 0), aspect="auto")
    figure.savefig(path, dpi=SIDE / CELL, facecolor=PAGE)
    plt.close(figure)


def main():
    every = [name for models in MODELS.values() for name in models]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=every, choices=every, metavar="MODEL", help=", ".join(every))
    parser.add_argument("--shapes", nargs="+", default=SHAPES, choices=SHAPES, metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("--rows", type=int, default=20_000, help="of each shape, to fit")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a fit")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture and the cells")
    options = parser.parse_args()
    if options.rows < 1_000 or not options.seconds > 0:
        parser.error("expected 1,000 rows or more, and seconds above 0")
    (options.out / "gallery").mkdir(parents=True, exist_ok=True)
    shapes = {name: shape_of(name, options.rows) for name in SHAPES if name in options.shapes}
    print("nats a row behind the truth, trained numbers, processor seconds of a first fit\n")
    print(f"{'':16}" + "".join(f"{name:>15}" for name in shapes) + f"{'numbers':>10}{'seconds':>9}")
    groups, off = {}, []
    for group, models in MODELS.items():
        for name in [each for each in models if each in options.models]:
            cells = groups.setdefault(group, {})[name] = cells_of(name, models[name], shapes, options)
            numbers, seconds = cost_of(cells)
            figures = "".join(f"{float(cell['behind']):15.3f}" for cell in cells.values())
            print(f"{name:16}{figures}{numbers:10,}{seconds:9.1f}", flush=True)
            off += [f"{name} on {title}: {cell['mass']:.3f}" for title, cell in cells.items() if cell["mass"] > 1.01]
    if off:
        print("\nmass of what integrates to more than 1.01: " + "; ".join(off))
    picture(options.out / "gallery.png", groups, shapes, options)
    print(f"\nwrote gallery.png to {options.out}/")


if __name__ == "__main__":
    flows.keep_programs()
    sys.exit(main())
