"""Flows of images: NICE, RealNVP, Glow, Flow++, spline and autoregressive flows, trained for as long as you wish.

    python examples/images.py --data digits --model glow --minutes 3 [--classes] [--out out]
    python examples/images.py --data fashion-mnist --model glow --minutes 60
    python examples/images.py --data folder --path my/pictures --model nsf --minutes 60
    python examples/images.py --data digits --model maf-mog --classes

Pixels get noise of one level, move into (0, 1) with a margin, and through the logit onto the line; the model follows. A first
trial tells how many epochs go into the time, so that the learning rate reaches its end. The same command again goes on where
it was stopped, and a finished one draws its pictures again. Everything is written to OUT/images/DATA-MODEL/: the checkpoint;
samples of the same noise while it learns; samples by temperature; what is left of images after encoding and decoding; the
training images that are nearest to samples; hidden halves of images filled in by the likeliest noise that fits the rest, the
method of Asim et al. (2020, arXiv:1905.11672), where NICE's paper, which hides the same halves, climbs the likelihood of the
pixels (Dinh, Krueger and Bengio, 2014, arXiv:1410.8516, section 5.2); ways from one image to another; what four images span
(RealNVP, 2017, arXiv:1605.08803, section 4); without --classes, images moved from class to class, or by an attribute (Glow,
2018, arXiv:1807.03039, section 6); with --classes one image as of every class, and how often Bayes' rule finds the right one;
of NICE, the scales of its noise; and likelihood beside typicality (Nalisnick et al., 2019, arXiv:1906.02994).

The noise of flow++ is learned, too (Ho et al., 2019, arXiv:1902.00275); it fills no halves in. Models made, made-mog, maf and
maf-mog have all pixels in a row (Papamakarios, Pavlakou and Murray, 2017, arXiv:1705.07057).
The unit of that paper is printed, too: nats of an image in logit space, -bits D ln 2 less the log-det of the pixels' layers.

Pictures:
    samples.png: Handwritten digits drawn from the flow, thirty-six at each of three temperatures; the lower it is, the cleaner
        they are.
    progress.png: Samples of the same noise at moments of the training, from early to late: from specks to digits.
    reconstructions.png: Digits of the test above, the noise that they are encoded as, and what is decoded of it below, which is
        as above.
    nearest.png: Ten samples, each beside the five training images that are nearest to it, which resemble it and differ.
    inpainting.png: Digits of which one half is hidden, in four ways; what the flow fills in; and what they were.
    interpolation.png: Six rows of digits, each of which turns step by step into another one.
    manifold.png: Nine rows of nine digits; the corners are four digits of the test, and all others lie between them.
    edits.png: Six rows of digits, each moved in five steps along the way from its class to the next.
    likelihood.png: Histograms of bits per dimension, and of p-values of typicality, for test images and for images of other
        kinds, each with one of its images.
"""

import argparse
import functools
import json
import math
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import image_data
import numpy as np
from image_pictures import Block, grid, sheet
from image_shows import Show, given
from watch import Watch

import flows

MARGINS = 1e-6, 0.05  # between pixels and the ends of (0, 1): in grey, or of published flows, and of colours in a row
IN_A_ROW = {"made": 1, "made-mog": 1, "maf": 5, "maf-mog": 5}
SIZES = {"glow": ((2, 24), (8, 64), (8, 64)), "nsf": ((2, 24), (3, 32), (4, 48)), "realnvp": ((2, 16), (2, 24), (3, 32))}
SIZES |= {"nice": ((4, 256), (4, 512), (4, 1000))}  # layers and width: 8 x 8, up to 28 x 28 in grey, all others
SIZES["flow++"] = ((2, 32), (3, 32), (4, 64))
SIZES |= {name: ((layers, 128), (layers, 512), (layers, 1024)) for name, layers in IN_A_ROW.items()}
STEPS, BATCH, HELD_OUT = 200, 32, 1_000  # of an epoch, images of a step, images to stop by
RATES = {
    "glow": 1e-2,
    **dict.fromkeys(("nsf", "realnvp", "nice", "flow++"), 3e-3),
    **dict.fromkeys(IN_A_ROW, 1e-3),
}  # the highest
PLANNED = ("minutes", "layers", "width", "batch", "rate", "margin", "noise")  # options that a run has to be gone on with
PASSES = 400  # over the training images, at most


def model_of(name, event, levels, layers=None, width=None, classes=False, margin=None, noise=None):
    """Pixels, brought to the line, and a published model."""
    height, side, channels = event
    small = 0 if height * side <= 100 else 1 if height * side * channels <= 1_024 else 2
    layers, width = (given or own for given, own in zip((layers, width), SIZES[name][small], strict=True))
    in_a_row, colours = name in IN_A_ROW, channels == 3
    if name != "nice" and not in_a_row and (height % 4 or side % 4):
        raise ValueError(f"images of {height} x {side} pixels: {name} halves the sides twice; expected multiples of 4")
    scales = 3 if small == 2 and height % 8 == side % 8 == 0 else 2
    model = {
        "glow": lambda: flows.GlowImage(layers, width, scales, class_prior=classes),
        "nsf": lambda: flows.NSFImage(layers, width, 2, scales),
        "realnvp": lambda: flows.RealNVPImage(layers, width, 2, scales),
        "nice": lambda: flows.NICEImage(layers, (width, width)),
        "flow++": lambda: flows.FlowPlusPlus(width, 2, 8, 4, (layers, -(-layers // 2), max(layers - 1, 1)), dropout=0.0),
        "made": lambda: flows.Serial(flows.Reshape(), flows.MAF(layers, (width, width), plain=True)),
        "made-mog": lambda: flows.Reshape(),
        "maf": lambda: flows.Serial(flows.Reshape(), flows.MAF(layers, (width, width))),
        "maf-mog": lambda: flows.Serial(flows.Reshape(), flows.MAF(layers, (width, width))),
    }[name]()
    margin = MARGINS[in_a_row and colours] if margin is None else margin
    step = (1 - 2 * margin) / levels
    noise = noise or ("learned" if name == "flow++" else "uniform")
    of_pixels = flows.FlowPlusPlusNoise(24, 1, 4, layers=2) if noise == "learned" else None
    pixels = (
        flows.Dequantize(1.0, levels=levels, noise=of_pixels),
        flows.FixedAffine(step, margin + step / 2),
        flows.Logit(False),
    )
    flips = [flows.RandomFlip()] * (in_a_row and colours)  # in training alone
    prior = flows.Logistic() if name == "nice" else flows.Normal()  # as published
    prior = flows.MixtureMADE(10, (width, width)) if name.endswith("-mog") else prior
    return flows.Flow(flows.Serial(*pixels, *flips, flows.ActNorm(), model), prior)


class Samples:
    """Draws samples of the same noise, and keeps a line of each."""

    def __init__(self, folder, levels, pixels, context):
        self.levels, self.pixels, self.context, self.file = levels, pixels, context, folder / "progress.npz"
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, epoch, path):
        params, _, sample = epoch.best()
        images = np.asarray(sample(1, params, 40, **given(self.context))).astype(np.uint8)
        bits = float(epoch.validation_loss) / (self.pixels * math.log(2))
        note = f"epoch {epoch.number + 1} of {epoch.max_epochs}, {bits:.3f} bits per dimension of what is held out"
        sheet(path, "Samples of the same noise", note, [Block(grid(images, 10))], self.levels)
        part = self.file.with_suffix(".part.npz")
        np.savez_compressed(part, **self.kept(), **{f"{epoch.number + 1}:{bits:.2f}": images[:12]})
        part.replace(self.file)  # whole or not at all

    def kept(self):
        """Images by "epoch:bits", of this run and of those that it goes on from; none where the file is damaged."""
        if not self.file.exists():
            return {}
        try:
            with self.file.open("rb") as content, np.load(content) as file:  # NumPy leaves one open that it cannot read
                return dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            print(f"{self.file} cannot be read, and what it kept of earlier epochs is left out: {error}", flush=True)
            return {}

    def progress(self):
        """(epoch, bits, images) of up to eight moments, more of them early."""
        kept = self.kept()
        names = sorted(kept, key=lambda name: int(name.split(":")[0]))
        places = sorted({round(each) for each in np.geomspace(1, len(names), 8) - 1}) if names else []
        return [(*names[i].split(":"), kept[names[i]]) for i in places]


def read_plan(path):
    """What was asked for when the plan was made, and its epochs."""
    try:
        planned = json.loads(path.read_text())
        return planned["asked"], int(planned["epochs"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove its folder, or give another --out") from None


def train(options, init_fun, images, folder, began):
    """Fit, or go on: a trial of two epochs makes the plan of the first time."""
    held_out = min(HELD_OUT, len(images.train) // 10)
    context = None if not options.classes else np.asarray(flows.one_hot(images.train_labels, len(images.names)))
    own = {} if context is None else {"context": context[held_out:], "standardize_context": False}
    validation = images.train[:held_out] if context is None else (images.train[:held_out], context[:held_out])
    rows = images.train[held_out:]
    batch = min(options.batch or min(BATCH, max(8, len(rows) // 20)), len(rows))
    steps = min(STEPS, len(rows) // batch)
    fit = functools.partial(
        flows.fit, 0, init_fun, rows, validation=validation, folds=1, batch_size=batch, steps_per_epoch=steps,
        learning_rate=options.rate or RATES[options.model], standardize=False, **own,
    )  # fmt: skip
    seconds = 60 * options.minutes
    rest = began + seconds - min(90, seconds / 4)  # when training has to end
    plan, asked = folder / "plan.json", {name: getattr(options, name) for name in PLANNED}
    if not plan.exists():
        at = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that two epochs are few
            fit(max_epochs=2, verbose=0, callbacks=[lambda epoch: at.append(epoch.seconds)])
        an_epoch = max(np.diff(at).min(), 1e-3) if len(at) > 1 else seconds
        epochs = 0.95 * (rest - time.monotonic()) / an_epoch
        epochs = int(np.clip(epochs, 2, max(2, PASSES * len(rows) // (steps * batch))))
        part = plan.with_suffix(".part.json")
        part.write_text(json.dumps({"asked": asked, "epochs": epochs, "seconds of one": round(float(an_epoch), 2)}))
        part.replace(plan)  # whole or not at all
    before, epochs = read_plan(plan)
    if before != asked:
        raise ValueError(f"{plan} is of {before}, not {asked}; give the same, another --out, or remove the folder")
    shown = None if context is None else np.eye(len(images.names), dtype=np.float32)[np.arange(40) % len(images.names)]
    samples = Samples(folder / "epochs", images.levels, images.test[0].size, shown)
    watch = Watch(folder / "epochs", samples, 0.0 if options.watch else max(3.0, seconds / 40))
    limit = max((rest - time.monotonic()) / 60, 1e-3)
    print(f"{len(rows):,} images to train on, {epochs} epochs of {steps} steps of {batch}", flush=True)
    settings = {"max_epochs": epochs, "max_minutes": limit, "checkpoint": folder}
    result = fit(**settings, callbacks=[watch], verbose=options.verbose)
    if options.watch:
        watch.animate(folder.with_suffix(".webp"))
    return result, samples


def main():
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sources = "; ".join(f"{name}: {source.help}" for name, source in image_data.SOURCES.items())
    parser.add_argument("--data", choices=image_data.SOURCES, default="digits", help=sources)
    parser.add_argument("--path", type=Path, help="folder of the data's files")
    parser.add_argument("--model", choices=SIZES, default="glow")
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="for all of it; a quarter, at most 90 s, is kept for pictures"
    )
    parser.add_argument("--classes", action="store_true", help="a model that is told the class")
    parser.add_argument("--layers", type=int, help="by default by the size of the images")
    parser.add_argument("--width", type=int, help="of the networks, by default by the size of the images")
    parser.add_argument("--batch", type=int, help=f"images of a step, by default {BATCH}")
    parser.add_argument("--rate", type=float, help="the highest learning rate, by default by the model")
    parser.add_argument("--margin", type=float, help="between pixels and the ends of (0, 1), by default by the model")
    parser.add_argument("--noise", choices=("uniform", "learned"), help="between whole numbers; learned by flow++ by default")
    parser.add_argument("--watch", action="store_true", help="draw after each epoch, and write an animation: DATA-MODEL.webp")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for everything")
    parser.add_argument("--verbose", type=int, choices=(0, 1), default=1, help="0 for no bar")
    options = parser.parse_args()
    numbers = options.minutes, options.rate, options.layers, options.width, options.batch
    if any(each is not None and not each > 0 for each in numbers):
        parser.error("expected numbers above 0 for --minutes, --rate, --layers, --width and --batch")
    if options.margin is not None and not 0 < options.margin < 0.5:
        parser.error("--margin: expected a number between 0 and 0.5")
    folder = options.out / "images" / f"{options.data}-{options.model}{'-classes' * options.classes}"
    try:
        images = image_data.load(options.data, options.path)
        if options.classes and not images.names:
            raise ValueError(f"--classes: {options.data} has no classes")
        others = image_data.others(options.data, images)
        sizes = options.layers, options.width, options.classes, options.margin, options.noise
        init_fun = model_of(options.model, images.train.shape[1:], images.levels, *sizes)
        folder.mkdir(parents=True, exist_ok=True)
        result, samples = train(options, init_fun, images, folder, began)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    result.save(folder / "model.safetensors")
    trained = time.monotonic() - began
    show = Show(result, images, others, folder, options.classes)
    if moments := samples.progress():
        names = tuple(f"epoch {number}\n{bits} bits" for number, bits, _ in moments)
        note = "Samples of the same noise, from early to late; bits per dimension of what is held out."
        sheet(folder / "progress.png", "Learning", note, [Block(np.stack([x for *_, x in moments]), "", names)], images.levels)
    told = [show.likelihood(), show.reconstructions(), show.nearest()]
    if options.model != "flow++":  # whose inverse is a root for each pixel, in each of many steps
        told.append(show.inpainting())
    show.samples()
    show.interpolation()
    show.manifold()
    if options.model == "nice":
        show.spectrum()
    if options.classes:
        show.class_edits()
        told.append(show.accuracy())
    elif directions := show.directions():
        show.edits(directions)
    epochs = len(result.history["train_loss"])
    print(
        f"\n{options.model} of {options.data}, {epochs} epochs, {trained:.0f} s, with pictures {time.monotonic() - began:.0f} s"
    )
    print(*told, f"wrote pictures to {folder}/", sep="\n")


if __name__ == "__main__":
    flows.keep_programs()
    main()
