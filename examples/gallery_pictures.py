"""How `gallery.py` draws: sheets of all models and shapes, each for a slide, and panels of one model."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

plt.style.use("flows.results.pictures.flows")
TEXT, (BLUE, ORANGE, *_) = plt.rcParams["text.color"], plt.rcParams["axes.prop_cycle"].by_key()["color"]
# From nothing to blue, and on at one lightness, which stands out from a white page and from a dark one.
DENSITY = LinearSegmentedColormap.from_list("density", [(0, (BLUE, 0)), (0.4, (BLUE, 0.9)), (0.7, "#a9619f"), (1, ORANGE)])
PIXELS = 160  # an inch

# Lengths on a sheet are inches, from its top left corner. A sheet is 20 inches wide: on a slide of 1,920 pixels the smallest
# letters, of 15 points, are 20 pixels high.
CELL, GAP, BELOW, NAMES, HEADING, BETWEEN, EDGE, HEAD = 1.0, 0.1, 0.36, 3.2, 0.6, 0.5, 0.2, 1.5
TINY, SMALL, MIDDLE, LARGE, LINE = 15, 18, 18, 23, 0.28  # points, and inches from line to line
TALL = 5  # models below each other


def in_words(title):
    return "".join(f" {letter}" if letter.isupper() else letter for letter in title).strip()


def number(nats):
    return f"{nats:.2f}".replace("-", "\N{MINUS SIGN}") if nats < 100 else "> 99"


def shaded(density, shape):
    """As colours. The square root shows what is faint, too; the last colour is that of the truth's highest."""
    return DENSITY(np.sqrt(np.clip(np.nan_to_num(density) / np.quantile(shape.image, 0.998), 0, 1)))


def draw_panels(path, shapes, densities, nats, alt):
    """The densities of one model, with nats beneath each."""
    columns = min(3, len(shapes))
    rows = -(-len(shapes) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.1 * columns, 2.1 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, shape) in zip(axes.flat, shapes.items(), strict=False):
        axis.imshow(shaded(densities[title], shape), origin="lower", interpolation="bilinear")
        told = f"{in_words(title)}: {number(nats[title])} nats"
        axis.text(0.5, -0.02, told, transform=axis.transAxes, ha="center", va="top", fontsize=9)
    figure.savefig(path, dpi=PIXELS, metadata={"Description": alt})
    plt.close(figure)


def sheets_of(families):
    """Blocks of (family, model), two on each sheet. A family of more than TALL models goes on in the next block."""
    blocks = [[]]
    for family, names in families.items():
        pieces = -(-len(names) // TALL)
        for i in range(pieces):
            piece = names[len(names) * i // pieces : len(names) * (i + 1) // pieces]
            if len(blocks[-1]) + len(piece) > TALL:
                blocks.append([])
            blocks[-1] += [(family, name) for name in piece]
    return [blocks[i : i + 2] for i in range(0, len(blocks), 2)]


def draw_sheets(folder, shapes, figures, densities, what, reference):
    """Draw gallery-1.png, gallery-2.png, ... and return their names."""
    families = {}
    for name, of in figures.items():
        families.setdefault(of["family"], []).append(name)
    contest = [of["behind"] for of in figures.values() if of["family"] != reference]
    best = {title: min((behind[title] for behind in contest), default=np.nan) for title in shapes}
    sheets = sheets_of(families)
    names = [f"gallery-{i + 1}.png" for i in range(len(sheets))]
    for i, blocks in enumerate(sheets):
        title = "Six shapes, every family" + (f" ({i + 1} of {len(sheets)})" if len(sheets) > 1 else "")
        draw_sheet(folder / names[i], title, shapes, blocks, figures, densities, what, best, reference)
    return names


def draw_sheet(path, heading, shapes, blocks, figures, densities, what, best, reference):
    pitch = CELL + GAP
    across = NAMES + len(shapes) * pitch
    width = max(9.0, 2 * EDGE + len(blocks) * across + (len(blocks) - 1) * BETWEEN)
    rows = max(len(block) * (CELL + BELOW) + len({family for family, _ in block}) * HEADING for block in blocks)
    tall = max(HEAD + HEADING + CELL + BELOW + rows + EDGE, width * 9 / 16)
    figure = plt.figure(figsize=(width, tall), layout="none")
    page = figure.add_axes((0, 0, 1, 1))
    page.axis("off")

    def write(x, y, text, size, **more):
        page.text(x, y, text, fontsize=size, **{"va": "center", **more})

    def row(x, y, name, lines, images, texts, strong=()):
        top = y + CELL / 2 - LINE / 2 * len(lines)
        write(x, top, name, LARGE, weight="bold")
        for i, line in enumerate(lines):
            write(x, top + LINE * (i + 1.25), line, SMALL)
        for i, title in enumerate(shapes):
            left = x + NAMES + i * pitch
            extent = (left, left + CELL, y + CELL, y)
            page.imshow(shaded(images[title], shapes[title]), extent=extent, origin="lower", interpolation="bilinear", zorder=2)
            style = {"color": ORANGE, "weight": "bold"} if title in strong else {}
            write(left + CELL / 2, y + CELL + 0.15, texts[title], SMALL, ha="center", **style)

    write(EDGE, 0.4, heading, 36, weight="bold")
    write(EDGE, 0.95, f"Densities fitted to {what}. Left: the processor seconds of a first fit.", MIDDLE)
    told = "Below: nats a row behind the truth, on 10,000 new rows. The best of a shape is in colour, references aside."
    write(EDGE, 1.27, told, MIDDLE)
    bar = width - EDGE - GAP - 3
    if width > 15:
        page.imshow(DENSITY(np.linspace(0, 1, 256))[None], extent=(bar, bar + 3, 0.6, 0.4), zorder=2)
        write(bar + 3, 0.2, "square root of the density", SMALL, ha="right")
        write(bar, 0.8, "0", SMALL)
        write(bar + 3, 0.8, "the truth's highest", SMALL, ha="right")
    for i, block in enumerate(blocks):
        x, y = EDGE + i * (across + BETWEEN), HEAD + HEADING
        for j, title in enumerate(shapes):
            name = in_words(title).replace(" ", "\n").replace("kerb", "ker-\nb")
            write(x + NAMES + j * pitch + CELL / 2, y - 0.08, name, TINY, ha="center", va="bottom")
        truth = {title: number(shape.truth.mean()) for title, shape in shapes.items()}
        row(x, y, "The truth", ("below: its mean", "log-density, nats"), {t: s.image for t, s in shapes.items()}, truth)
        y += CELL + BELOW
        for k, (family, name) in enumerate(block):
            if not k or block[k - 1][0] != family:
                page.plot([x, x + across - GAP], [y + 0.1] * 2, color=TEXT, alpha=0.4, linewidth=0.8)
                write(x, y + 0.34, family.upper(), SMALL, color=ORANGE)
                y += HEADING
            of = figures[name]
            numbers = f"{of['numbers']:,} parameters" if of["numbers"] else "nothing trained"
            lines = [*([of["note"]] if of["note"] else []), numbers, f"{first_fit(of):.0f} s"]
            strong = [title for title in shapes if family != reference and of["behind"][title] == best[title]]
            row(x, y, of["title"], lines, densities[name], {t: number(n) for t, n in of["behind"].items()}, strong)
            y += CELL + BELOW
    page.set(xlim=(0, width), ylim=(tall, 0), aspect="auto")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def first_fit(of):
    """Processor seconds, in the mean over shapes."""
    return np.mean([*of["seconds"].values()]) + of["compiling"]
