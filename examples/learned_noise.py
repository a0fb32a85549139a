"""Digits by Flow++, which learns the noise between grey levels: samples, temperatures, and ways from one digit to another.

    python examples/learned_noise.py [--out out] [--epochs 32]

Grey levels are whole numbers, and a flow has a density, so numbers between 0 and 1 are added to them. Flow++ (Ho et al.,
2019, arXiv:1902.00275) draws them from a second flow, which sees the image and is trained with the first. Bits per pixel are
then an upper bound, and the mean over several draws of the noise brings it down. Prints the bits of 360 images that were not
trained on, by one draw and by sixteen, and how far the drawn noise is from uniform noise; writes learned_noise.png.

Pictures:
    learned_noise.png: Handwritten digits drawn from Flow++ at three temperatures, which are cleaner the lower it is, and below
        four rows of digits of the test, each of which turns step by step into another one.
"""

import argparse
from pathlib import Path

import image_data
import numpy as np
from image_pictures import Block, grid, sheet
from image_shows import Show, picks, spherical
from images import RATES, model_of

import flows

HELD_OUT, WAYS, STEPS = 143, 4, 15


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--epochs", type=int, default=32)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    images = image_data.load("digits", None)
    size, levels, test = images.test[0].shape, images.levels, images.test
    model = model_of("flow++", size, levels)
    fitting = {"validation": images.train[:HELD_OUT], "standardize": False, "learning_rate": RATES["flow++"], "batch_size": 32}
    result = flows.fit(0, model, images.train[HELD_OUT:], max_epochs=arguments.epochs, **fitting)

    for draws in (1, 16):
        bits = flows.bits_per_dim(result, test, samples=draws, batch_size=60)
        print(f"bits per pixel, draws of the noise: {draws:2}  {bits.mean:.3f} +- {bits.error:.3f}")
    show = Show(result, images, {}, arguments.out, classes=False)
    line, _ = show.parts.logit.direct_fun(show.parts.logit.params, test.astype(np.float32), rng=1)
    noise = unit_noise(np.asarray(line), test, levels)
    print(f"noise: mean {noise.mean():.3f}, standard deviation {noise.std():.3f} (uniform: 0.500, {12**-0.5:.3f})")

    drawn = [Block(grid(show.draw(2, 25, at), 5), f"temperature {at}") for at in show.temperatures]
    places = picks(images, 2 * WAYS)
    first, last = (np.asarray(show.parts.encode(test[each])) for each in (places[:WAYS], places[WAYS:]))
    ways = np.concatenate([spherical(first, last, t) for t in np.linspace(0, 1, STEPS)])
    between = show.parts.decode(ways).reshape(STEPS, WAYS, *size).swapaxes(0, 1)
    note = "The same noise at three temperatures; below, ways between digits of the test, along the sphere of the noise."
    blocks = [*drawn, Block(between, "from one digit to another")]
    sheet(arguments.out / "learned_noise.png", "Flow++ with learned noise", note, blocks, levels, across=3)


def unit_noise(line, images, levels):
    """The noise in (0, 1) that was added to images, of their logits."""
    unit = 1 / (1 + np.exp(-line.astype(float).reshape(images.shape)))
    margin = 1e-6
    return (unit - margin) / (1 - 2 * margin) * levels - images


if __name__ == "__main__":
    main()
