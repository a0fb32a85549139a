"""A density on the globe, of two columns of degrees: a flow of the sphere, and what it costs to treat degrees as numbers.

    python examples/globe.py [--csv FILE --latitude NAME --longitude NAME] [--rows 5000] [--layers 4] [--out out]

Points are unit vectors, and densities are per unit of surface. Each layer maps heights by a spline of [-1, 1] and longitudes by
a spline of the circle, and a rotation turns the axis before the next, so that nothing tells the poles, or the meridian where
degrees jump by 360, from other places. Rezende, Papamakarios, Racanière, Albergo, Kanwar, Shanahan and Cranmer, "Normalizing
Flows on Tori and Spheres", 2020, arXiv:2002.02428. Without a file, rows are drawn from a mixture whose density is known,
written as globe.csv, and read from there. Prints scores on rows that no model has seen; writes globe.png.

Pictures:
    globe.png: Densities of five places on a map of the world and on a globe: the truth with some rows, the sphere flow, which
        agrees, and a spline flow of degrees, which is cut along the meridian of 180 degrees.
"""

import argparse
import csv
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.colors import LogNorm
from style import BLUE, DENSITY, GREY, plt

import flows

TEST, DOTS = 20_000, 1_500
FEWEST = 100
PLACES = [(35, 139, 50), (62, -150, 25), (-20, -70, 80), (-5, 175, 5), (86, 30, 200)]  # latitude, longitude, concentration
WEIGHTS = [0.25, 0.2, 0.2, 0.25, 0.1]
STARTS = 4  # of the mixture, which ends where its start leads it
SEAM, CAP = 3, 10  # degrees: what is near the meridian of 180 degrees, and what is near a pole
ENDS = np.array([180.001, 90.001])  # beyond those of longitude and latitude, where there may be rows


def degrees(points):
    """Longitude and latitude, (rows, 2)."""
    return np.stack(flows.to_degrees(points)[::-1], 1)


def true_density():
    places = np.array(PLACES, float)
    parts = [flows.VonMisesFisher(tuple(at), k) for at, k in zip(flows.from_degrees(*places.T[:2]), places[:, 2], strict=True)]
    return flows.Mixture(*parts, weights=WEIGHTS, trainable=False)(0, 3)


def write_globe(path, points, latitude, longitude):
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([latitude, longitude])
        table.writerows((f"{lat:.6f}", f"{lon:.6f}") for lon, lat in degrees(points))


def read_globe(path, latitude, longitude):
    """Unit vectors (rows, 3) of two columns of a file; a ValueError of one line where they are not in degrees."""
    limits = {latitude: 90, longitude: 360}
    if len(limits) < 2:
        raise ValueError(f"latitude and longitude are both {latitude!r}; expected two columns")
    values = {name: [] for name in limits}
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        names = list(table.fieldnames or ())
        for name in limits:
            if names.count(name) != 1:
                there = ", ".join(names) or "none"
                raise ValueError(f"{names.count(name) or 'no'} columns are called {name!r}; expected one. There are: {there}")
        for row in table:
            for name, limit in limits.items():
                cell = (row[name] or "").strip()
                try:
                    value = float(cell)
                except ValueError:
                    value = math.nan
                if not abs(value) <= limit:
                    raise ValueError(f"line {table.line_num}: {name} is {cell!r}; expected degrees from -{limit} to {limit}")
                values[name].append(value)
    points = flows.from_degrees(*map(np.array, values.values()))
    different = len(np.unique(points.round(9), axis=0))
    if different < FEWEST:
        raise ValueError(f"{len(points)} rows at {different} places; expected {FEWEST} places or more")
    return points


class Model(NamedTuple):
    """`log_density(points)` is in nats per unit of surface."""

    log_density: Callable
    seconds: float


def in_pieces(log_pdf, points, size=50_000):
    pieces = np.split(points.astype(np.float32), range(size, len(points), size))
    return np.concatenate([np.asarray(log_pdf(piece), float) for piece in pieces])


def of_points(distribution, seconds=0.0):
    return Model(lambda points: in_pieces(lambda x: distribution.log_pdf(distribution.params, x), points), seconds)


def of_degrees(result, seconds):
    """A degree of longitude is cos(latitude) pi / 180 long, one of latitude pi / 180."""

    def log_density(points):
        log_area = np.log(np.hypot(*points.T[:2].astype(float))) + 2 * np.log(np.pi / 180)
        return in_pieces(lambda x: result.log_pdf(result.params, x), degrees(points)) - log_area

    return Model(log_density, seconds)


def fitted(rows, layers):
    """The models by name, each fitted to the same rows, of which the same tenth says when to stop."""

    def fit(init_fun, data, seeds=1, **more):
        held_out, data = np.split(data, [len(data) // 10])
        start = time.process_time()
        results = [flows.fit(seed, init_fun, data, validation=held_out, verbose=0, **more) for seed in range(seeds)]
        return min(results, key=lambda each: np.min(each.history["validation_loss"])), time.process_time() - start

    one = flows.VonMisesFisher(trainable=True)
    several = flows.Mixture(one, num_components=len(PLACES))
    sphere = flows.Flow(flows.SphereFlow(layers, num_bins=8), flows.SphereUniform())
    plane = flows.Flow(flows.NSF(layers, activation="gelu"))
    return {
        "von Mises-Fisher": of_points(*fit(one, rows)),
        f"mixture of {len(PLACES)}": of_points(*fit(several, rows, STARTS, learning_rate=0.05, max_epochs=400)),
        "sphere flow": of_points(*fit(sphere, rows)),
        "spline flow of degrees": of_degrees(*fit(plane, degrees(rows))),
        "the same, with bounds": of_degrees(*fit(plane, degrees(rows), support=(-ENDS, ENDS))),
    }


def mass(log_density, size=256):
    """The integral over the globe, by the midpoint rule."""
    middle = (np.arange(2 * size) + 0.5) * 180 / size - 180
    latitude, longitude = np.meshgrid(middle[size // 2 : -size // 2], middle)
    points = flows.from_degrees(latitude.ravel(), longitude.ravel())
    return (np.exp(log_density(points)) * np.hypot(*points.T[:2])).sum() * (np.pi / size) ** 2


def report(models, test):
    """Scores, and how far each is behind the first of truth and sphere flow that there is, by region."""
    longitude, latitude = degrees(test).T
    cap = np.abs(latitude) > 90 - CAP
    seam = (180 - np.abs(longitude) < SEAM) & ~cap
    regions = {"all rows": slice(None), "seam": seam, "poles": cap, "elsewhere": ~(seam | cap)}
    reference = "truth" if "truth" in models else "sphere flow"
    scores = {name: model.log_density(test) for name, model in models.items()}
    print(f"{'':24}{'nats a row':>12}   nats behind the {reference}")
    print(f"{'':36}{'all rows':>17}{'seam':>8}{'poles':>8}{'elsewhere':>11}{'mass':>8}{'seconds':>9}")
    for name, values in scores.items():
        behind = scores[reference] - values
        everywhere, *parts = (behind[each].mean() if behind[each].size else math.nan for each in regions.values())
        cells = f"{everywhere:.3f} +- {behind.std() / len(test) ** 0.5:.3f}"
        cells = f"{cells:>17}" + "".join(f"{each:{width}.3f}" for each, width in zip(parts, (8, 8, 11), strict=True))
        if name == reference:
            cells = " " * 44
        print(f"{name:24}{values.mean():12.3f}{cells}{mass(models[name].log_density):8.3f}{models[name].seconds:9.0f}")
    print(
        f"\nseam: within {SEAM} degrees of the meridian of 180 degrees, {seam.mean():.1%} of {len(test):,} rows; poles: within "
        f"{CAP} degrees of one, {cap.mean():.1%}\nmass: what the density integrates to over the globe"
    )
    return {name: (scores[reference] - values).mean() for name, values in scores.items()}, reference


class View(NamedTuple):
    """A projection of the globe as seen over a place: `forward` and `inverse` are of points turned so that it is (1, 0, 0)."""

    forward: Callable
    inverse: Callable
    width: float
    height: float
    turn: np.ndarray

    def to_plane(self, points):
        """(rows, 2), NaN where a point is on the far side."""
        return self.forward(points @ self.turn.T)

    def to_globe(self, x, y):
        """Points and whether there are any."""
        points, inside = self.inverse(x, y)
        return points @ self.turn, inside


def view(kind, latitude, longitude):
    (forward,), (east,) = flows.from_degrees(latitude, longitude), flows.from_degrees(0, longitude + 90)
    turn = np.stack([forward, east, np.cross(forward, east)])
    if kind == "globe":
        return View(from_afar, onto_near_side, 1.0, 1.0, turn)
    return View(hammer, from_hammer, 2 * 2**0.5, 2**0.5, turn)


def from_afar(points):
    return np.where(points[..., :1] >= -1e-9, points[..., 1:], np.nan)


def onto_near_side(x, y):
    squared = 1 - x * x - y * y
    return np.stack([np.sqrt(np.maximum(squared, 0)), x, y], -1), squared >= 0


def hammer(points):
    """The Hammer projection, which keeps areas."""
    longitude, latitude = np.arctan2(points[..., 1], points[..., 0]), np.arcsin(points[..., 2].clip(-1, 1))
    scale = np.sqrt(2 / (1 + np.cos(latitude) * np.cos(longitude / 2)))
    return np.stack([2 * scale * np.cos(latitude) * np.sin(longitude / 2), scale * np.sin(latitude)], -1)


def from_hammer(x, y):
    inside = x * x / 8 + y * y / 2 <= 1
    z = np.sqrt(np.maximum(1 - x * x / 16 - y * y / 4, 0.5))
    longitude, height = 2 * np.arctan2(z * x, 2 * (2 * z * z - 1)), (z * y).clip(-1, 1)
    flat = np.sqrt(1 - height * height)
    return np.stack([flat * np.cos(longitude), flat * np.sin(longitude), height], -1), inside


def draw_globe(axis, seen, norm, log_density=None, rows=None, pixels=420):
    """The density in colours, rows as dots, meridians and parallels."""
    across = int(pixels * seen.width / seen.height)
    x, y = np.meshgrid(
        seen.width * (2 * np.arange(across) + 1 - across) / across, seen.height * (2 * np.arange(pixels) + 1 - pixels) / pixels
    )
    points, inside = seen.to_globe(x, y)
    image = np.full(x.shape, np.nan)
    image[inside] = norm.vmin if log_density is None else np.exp(log_density(points[inside]))
    extent = (-seen.width, seen.width, -seen.height, seen.height)
    shown = axis.imshow(image.clip(norm.vmin), origin="lower", extent=extent, cmap=DENSITY, norm=norm, interpolation="bilinear")
    around = np.linspace(0, 2 * np.pi, 400)
    (rim,) = axis.fill(seen.width * np.cos(around), seen.height * np.sin(around), fill=False, color=GREY, lw=1.2, zorder=5)
    shown.set_clip_path(rim)
    turn = np.linspace(-180, 180, 721)
    lines = [flows.from_degrees(np.linspace(-90, 90, 361), np.full(361, meridian)) for meridian in range(-165, 180, 30)]
    lines += [flows.from_degrees(np.full(721, parallel), turn) for parallel in range(-60, 90, 30)]
    for line in lines:
        line = seen.to_plane(line)
        jumps = np.abs(np.diff(line, axis=0)).max(1) > 0.5
        line[1:][jumps] = np.nan
        axis.plot(*line.T, color=GREY, lw=0.45, alpha=0.55)
    if rows is not None:
        axis.scatter(*seen.to_plane(rows).T, s=2.2, color=BLUE, alpha=0.8, linewidths=0, zorder=4)
    axis.set(xlim=(-1.02 * seen.width, 1.02 * seen.width), ylim=(-1.02 * seen.height, 1.02 * seen.height), aspect="equal")
    axis.set_axis_off()
    return shown


def picture(path, models, behind, reference, rows):
    """The truth, or the rows where it is not known, beside two models: on a map, and from above."""
    place = 55, 180  # both a pole and the meridian where degrees jump
    views = view("map", 0, 180), view("globe", *place)
    top = np.exp(np.quantile(models[reference].log_density(rows), 0.995))
    norm = LogNorm(top / 300, top)
    some = rows[np.random.default_rng(0).permutation(len(rows))[:DOTS]]
    columns = {f"the truth, and {len(some):,} of the rows": ("truth", some)}
    if "truth" not in models:
        columns = {f"{len(some):,} of the rows": (None, some)}
    columns |= {"sphere flow": ("sphere flow", None), "spline flow of degrees": ("spline flow of degrees", None)}
    figure, axes = plt.subplots(2, 3, figsize=(10, 5.2), gridspec_kw={"height_ratios": (1, 1.65)})
    for column, (title, (name, dots)) in zip(axes.T, columns.items(), strict=True):
        for axis, seen in zip(column, views, strict=True):
            shown = draw_globe(axis, seen, norm, None if name is None else models[name].log_density, dots)
        if name not in (None, reference):
            title = f"{title}\n{behind[name]:.2f} nats behind the {reference}"
        column[0].set_title(title)
    arrow = {"arrowstyle": "->", "color": GREY, "lw": 1.2}
    seam = views[1].to_plane(flows.from_degrees(10, 180)[0])
    axes[1, 2].annotate("180 degrees", seam, (0.45, -1.02), ha="left", arrowprops=arrow)
    figure.colorbar(shown, ax=axes, shrink=0.6, aspect=35, pad=0.015, label="density per unit of surface")
    figure.savefig(path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, help="a file with a header, by default rows of a known density")
    parser.add_argument("--latitude", default="latitude", help="the name of its column, in degrees")
    parser.add_argument("--longitude", default="longitude", help="the name of its column, in degrees, from -180 or from 0")
    parser.add_argument(
        "--rows", type=int, help="how many to draw, by default 5,000; of a file at most so many, by default all"
    )
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()
    if options.rows is not None and options.rows < FEWEST:
        parser.error(f"--rows is {options.rows}; expected {FEWEST} or more")
    if options.layers < 1:
        parser.error(f"--layers is {options.layers}; expected 1 or more")
    options.out.mkdir(parents=True, exist_ok=True)
    models, path = {}, options.csv
    if path is None:
        truth, path = true_density(), options.out / "globe.csv"
        models["truth"] = of_points(truth)
        drawn = truth.sample(1, truth.params, options.rows or 5_000)
        write_globe(path, drawn, options.latitude, options.longitude)
    try:
        rows = read_globe(path, options.latitude, options.longitude)
    except (OSError, ValueError, csv.Error) as error:
        parser.error(f"{path}: {getattr(error, 'strerror', None) or error}")
    if options.csv is None:
        test = np.asarray(truth.sample(2, truth.params, TEST))
    else:
        rows = np.random.default_rng(0).permutation(rows)[: options.rows]
        test, rows = np.split(rows, [len(rows) // 5])
    print(f"{len(rows):,} rows of {path.name}, and {len(test):,} others to score the models\n")
    models |= fitted(rows, options.layers)
    behind, reference = report(models, test)
    picture(options.out / "globe.png", models, behind, reference, rows)
    print(f"\nwrote globe.png to {options.out}/")


if __name__ == "__main__":
    flows.keep_programs()
    main()
