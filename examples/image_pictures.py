"""How `images.py` draws: sheets of small images with their labels, and histograms, in the style of all examples."""

from typing import NamedTuple

try:
    from style import GREY, ORANGE, plt
except ImportError:
    raise SystemExit("error: pictures need the package matplotlib: pip install matplotlib") from None
import numpy as np

WIDTH, CELL = 10.0, 0.72  # of a page, and of an image, at most; inches, as all lengths
EDGE, HEAD, HEADING, LABELS, NAMES, BETWEEN, GAP = 0.1, 0.85, 0.36, 0.26, 0.85, 0.3, 0.05
SMALL, MIDDLE, LARGE = 9, 11, 16  # points
COLOURS = plt.rcParams["axes.prop_cycle"].by_key()["color"]


class Block(NamedTuple):
    """Images in rows and columns, (rows, columns, height, width, channels), and what stands around them."""

    images: np.ndarray
    heading: str = ""
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    marked: tuple[tuple[int, int], ...] = ()  # places with a frame
    apart: int = 0  # columns on the left, that stand apart


def shown(image, levels):
    """Colours in [0, 1], (height, width, 3)."""
    unit = np.asarray(image, float) / (levels - 1)
    return np.repeat(unit, 3, 2) if unit.shape[-1] == 1 else unit[..., :3]


def sheet(path, title, note, blocks, levels, across=None):
    """Blocks side by side, `across` of them in a line; images are as large as a page lets them be."""
    across = across or len(blocks)
    lines = [blocks[i : i + across] for i in range(0, len(blocks), across)]

    def size(block, cell):
        height, width = block.images.shape[2:4]
        tall = cell * height / width
        left = NAMES if block.rows else 0.0
        top = HEADING * bool(block.heading) + LABELS * bool(block.columns)
        apart = 3 * GAP if block.apart else 0.0
        rows, columns = block.images.shape[:2]
        return left, top, tall, left + columns * (cell + GAP) + apart - GAP, top + rows * (tall + GAP) - GAP

    def width_of(line, cell):
        return sum(size(each, cell)[3] for each in line) + BETWEEN * (len(line) - 1)

    around = [width_of(line, 0.0) for line in lines]
    cell = min(
        [CELL, *((WIDTH - 2 * EDGE - at_0) / (width_of(line, 1.0) - at_0) for line, at_0 in zip(lines, around, strict=True))]
    )
    wide = max(width_of(line, cell) for line in lines)
    tall = sum(max(size(each, cell)[4] for each in line) for line in lines) + BETWEEN * (len(lines) - 1)
    width, height = max(wide, 7.0) + 2 * EDGE, HEAD + tall + EDGE
    figure = plt.figure(figsize=(width, height), layout="none")
    page = figure.add_axes((0, 0, 1, 1))
    page.axis("off")

    def write(x, y, text, points, **more):
        page.text(x, y, text, fontsize=points, **{"va": "center", **more})

    write(EDGE, 0.2, title, LARGE)
    write(EDGE, 0.52, note, MIDDLE)
    top = HEAD
    for line in lines:
        x = EDGE + (max(wide, 7.0) - width_of(line, cell)) / 2
        for block in line:
            left, above, each, across_block, _ = size(block, cell)
            if block.heading:
                write(x + left, top + 0.12, block.heading, MIDDLE)
            gaps = [3 * GAP if 0 < block.apart <= j else 0.0 for j in range(block.images.shape[1])]
            places = [x + left + j * (cell + GAP) + gap for j, gap in enumerate(gaps)]
            for at, name in zip(places, block.columns, strict=False):
                write(at + cell / 2, top + above - LABELS / 2, name, SMALL, ha="center")
            for i, row in enumerate(block.images):
                y = top + above + i * (each + GAP)
                if block.rows:
                    write(x + left - 0.12, y + each / 2, block.rows[i], SMALL, ha="right")
                for j, image in enumerate(row):
                    spot = (places[j], places[j] + cell, y + each, y)
                    page.imshow(shown(image, levels), extent=spot, interpolation="nearest", zorder=2)
                    if (i, j) in block.marked:
                        page.add_patch(
                            plt.Rectangle((places[j], y), cell, each, fill=False, edgecolor=ORANGE, linewidth=2, zorder=3)
                        )
            x += across_block + BETWEEN
        top += max(size(each, cell)[4] for each in line) + BETWEEN
    page.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    figure.savefig(path)
    plt.close(figure)


def grid(images, columns):
    """(images, ...) -> (rows, columns, ...)."""
    return images[: len(images) // columns * columns].reshape(-1, columns, *images.shape[1:])


def histograms(path, title, note, kinds, levels, group):
    """Of each kind an image, its bits and the p-values of groups: {name: (image, bits, p-values)}; the first is the usual."""
    figure = plt.figure(figsize=(10, 4.8), layout="none")
    figure.text(0.01, 0.95, title, fontsize=LARGE, va="center")
    figure.text(0.01, 0.87, note, fontsize=MIDDLE - 1, va="center")
    own = next(iter(kinds.values()))[1]
    everything = np.concatenate([bits for _, bits, _ in kinds.values()])
    wide = np.quantile(own, 0.99) - np.quantile(own, 0.01)
    low, high = np.quantile(everything, (0.001, 0.999))
    low, high = max(low, own.min() - 2 * wide), min(high, own.max() + 2 * wide)
    room = 0.03 * (high - low)
    columns = {
        "bits per dimension": (0.23, np.linspace(low - room, high + room, 61), 1),
        f"p-value of {group} images": (0.63, np.linspace(0, 1, 21), 2),
    }
    for label, (left, edges, which) in columns.items():
        axes = figure.add_axes((left, 0.13, 0.36, 0.66))
        for colour, parts in zip(COLOURS, kinds.values(), strict=False):
            weights = np.full(len(parts[which]), 1 / len(parts[which]))
            style = {"weights": weights, "bins": edges, "color": colour}
            axes.hist(np.clip(parts[which], edges[0], edges[-1]), alpha=0.22, **style)
            axes.hist(np.clip(parts[which], edges[0], edges[-1]), histtype="step", linewidth=1.5, **style)
        beyond = any(parts[which].max() > edges[-1] or parts[which].min() < edges[0] for parts in kinds.values())
        axes.set(xlabel=label + (", what is beyond at the edge" if beyond else ""), yticks=[])
        axes.spines["left"].set_visible(False)
        if which == 1:
            axes.set_ylim(0, 2.2 * (np.histogram(own, edges)[0].max() / len(own)))
        else:
            axes.set_ylim(0, 0.4)
            axes.axvline(0.05, color=GREY, linewidth=0.8, linestyle=":")
    for i, (colour, (name, (image, _, _))) in enumerate(zip(COLOURS, kinds.items(), strict=False)):
        pitch = 0.66 / max(len(kinds), 5)
        y, tall = 0.79 - (i + 0.9) * pitch, 0.82 * pitch
        small = figure.add_axes((0.01, y, tall * 4.8 / 10, tall))
        small.imshow(shown(image, levels), interpolation="nearest")
        small.set(xticks=[], yticks=[])
        for spine in small.spines.values():
            spine.set(color=colour, linewidth=2, visible=True)
        figure.text(0.078, y + tall / 2, name, fontsize=MIDDLE - 0.5, va="center")
    figure.savefig(path)
    plt.close(figure)
