"""What `images.py` asks of a fitted flow of images: samples, reconstructions, halves filled in, ways, classes, likelihood."""

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from image_pictures import Block, grid, histograms, plt, sheet

import flows

MEANS = 500  # images of a class whose noise is averaged
TEST, PIECE = 2_040, 60  # images to score, and at once, so that one program serves all
TEMPERATURES = (0.6, 0.8, 1.0)
GROUP = 5  # images that are judged together
LOGIT = 3  # layers up to the logit
DESCENT, MISS = 400, 0.1  # steps of filling in, and how far the pixels that are seen may be missed, on the line


class Parts(NamedTuple):
    """A fitted model in three: `line` of pixels, of all layers but the last, `bijection` to noise, and the `prior` of noise.
    `logit` has the first three layers alone, up to the logit."""

    logit: Any
    line: Any
    bijection: Any
    prior: Any

    @classmethod
    def of(cls, result):
        first, prior = result.init_fun.arguments["bijection"].arguments["layers"], result.init_fun.arguments["prior"]
        event, own = result.input_dim, {"context_dim": result.context_dim} if result.context_dim else {}
        params, last = result.params["bijection"], first[-1]
        logit, line = (flows.Serial(*first[:n])(0, event)._replace(params=params[:n]) for n in (LOGIT, len(first) - 1))
        of_last, of_prior = (own if "context_dim" in each.keywords else {} for each in (last, prior))
        bijection = last(0, event, **of_last)._replace(params=params[-1])
        context = {"context": np.zeros((1, result.context_dim), np.float32)} if of_last else {}
        z, _ = bijection.direct_fun(bijection.params, np.zeros((1, *event), np.float32), **context)
        return cls(logit, line, bijection, prior(0, z.shape[1:], **of_prior)._replace(params=result.params["prior"]))

    @staticmethod
    def taken(function, context):
        """The context, as a keyword, where a function names it."""
        return given(context if "context" in inspect.signature(function).parameters else None)

    def log_prior(self, z, context):
        return self.prior.log_pdf(self.prior.params, z, **self.taken(self.prior.log_pdf, context))

    def to_line(self, images):
        return self.line.direct_fun(self.line.params, jnp.asarray(images, jnp.float32))[0]

    def to_pixels(self, y):
        return np.asarray(self.line.inverse_fun(self.line.params, y)[0])

    def to_noise(self, y, context=None):
        return self.bijection.direct_fun(self.bijection.params, y, **self.taken(self.bijection.direct_fun, context))[0]

    def from_noise(self, z, context=None):
        return self.bijection.inverse_fun(self.bijection.params, z, **self.taken(self.bijection.inverse_fun, context))[0]

    def encode(self, images, context=None):
        return self.to_noise(self.to_line(images), context)

    def decode(self, z, context=None):
        return self.to_pixels(self.from_noise(z, context))


def given(context):
    return {} if context is None else {"context": context}


def one_hots(labels, images):
    return None if labels is None else np.eye(len(images.names), dtype=np.float32)[np.asarray(labels)]


def picks(images, count, seed=0):
    """Places of test images, one of each class in turn where there are classes."""
    order = np.random.default_rng(seed).permutation(len(images.test))
    if images.test_labels is None:
        return order[:count]
    turns = np.zeros(len(order), int)
    for label in np.unique(images.test_labels):
        own = images.test_labels[order] == label
        turns[own] = np.arange(own.sum())
    return order[np.lexsort((images.test_labels[order], turns))][:count]


class Show:
    """The pictures of a fitted model. Each writes one, and may return a line of figures."""

    def __init__(self, result, images, others, folder, classes, seed=0):
        self.result, self.images, self.others, self.folder = result, images, others, folder
        self.classes, self.seed = classes, seed
        self.parts, self.levels, self.size = Parts.of(result), images.levels, images.test[0].shape
        normal = result.init_fun.arguments["prior"].constructor is not flows.MixtureMADE
        self.temperatures = TEMPERATURES if normal else (1.0,)  # a mixture has none

    def context(self, labels):
        return one_hots(labels, self.images) if self.classes else None

    def own(self, places):
        """The context of test images."""
        return {} if not self.classes else {"context": self.context(self.images.test_labels[places])}

    def sheet(self, name, *given, **more):
        sheet(self.folder / f"{name}.png", *given, self.levels, **more)

    def draw(self, key, count, temperature=1.0, labels=None):
        """Samples; with classes of all of them in turn, where no labels are given."""
        context = self.context(np.arange(count) % len(self.images.names) if labels is None and self.classes else labels)
        own = {"context_dim": self.result.context_dim} if self.classes else {}
        init_fun = self.result.init_fun if temperature == 1 else flows.revise(self.result.init_fun, temperature=temperature)
        sample = init_fun(0, self.size, **own).sample
        return np.asarray(sample(key, self.result.params, count, **given(context))).astype(np.uint8)

    def samples(self):
        blocks = []
        for temperature in self.temperatures:
            if self.classes:
                names = self.images.names
                drawn = grid(self.draw(self.seed, 5 * len(names), temperature, np.repeat(np.arange(len(names)), 5)), 5)
                rows = names if temperature == self.temperatures[0] else ()
            else:
                drawn, rows = grid(self.draw(self.seed, 36, temperature), 6), ()
            blocks.append(Block(drawn, f"temperature {temperature}", rows))
        note = "The same noise at three temperatures: its standard deviation, 1 in training."
        note = note if len(blocks) > 1 else "The base is a mixture, which has no temperature."
        self.sheet("samples", "Samples", note, blocks)

    def reconstructions(self):
        at = picks(self.images, 12)
        test, own = self.images.test[at], self.own(at)
        z = self.parts.encode(test, **own)
        line = self.parts.from_noise(z, **own)
        decoded = self.parts.to_pixels(line)
        off = np.abs(decoded - test).max()
        noise = np.asarray(z).reshape(len(at), *self.size)
        noise = np.clip((noise + 3) / 6, 0, 1) * (self.levels - 1)
        blocks = [Block(np.stack([test, noise, np.clip(decoded, 0, self.levels - 1)]), "", ("image", "as noise", "decoded"))]
        far = float(jnp.abs(line - self.parts.to_line(test)).max())
        note = f"Largest error of a pixel: {off:.0f} of {self.levels - 1} levels; on the line {far:.1e} standard deviations."
        self.sheet("reconstructions", "Encoded and decoded", note, blocks)
        return f"largest error of a decoded pixel: {off:.0f} levels; on the line {far:.1e}"

    def nearest(self):
        every = self.draw(self.seed + 1, 200, 0.8 if len(self.temperatures) > 1 else 1.0)
        drawn = every[:10]
        found, own = neighbours(every, self.images.train, 5)
        _, usual = neighbours(self.images.test[picks(self.images, 200)], self.images.train, 1)
        columns = ("sample", "nearest", "second", "third", "fourth", "fifth")
        halves = [
            Block(np.concatenate([drawn[part, None], self.images.train[found[part]]], 1), "", (), columns, apart=1)
            for part in (slice(5), slice(5, 10))
        ]
        own, usual = np.median(own[:, 0]), np.median(usual)
        note = f"Median root mean square distance to the nearest, in levels: samples {own:.1f}, test images {usual:.1f}."
        self.sheet("nearest", "Samples, and the training images nearest to them", note, halves)
        return f"distance to the nearest training image, levels: samples {own:.1f}, test images {usual:.1f}"

    def inpainting(self):
        height, side, _ = self.size
        rows, columns = np.mgrid[:height, :side]
        halves = {"lower half": rows >= height // 2, "right half": columns >= side // 2}
        halves |= {"every second pixel": (rows + columns) % 2, "upper half": rows < height // 2}
        at = np.tile(picks(self.images, 6), len(halves))
        test = self.images.test[at]
        hidden = np.repeat(np.stack(list(halves.values())).astype(bool), 6, 0)[..., None] & np.ones(self.size, bool)
        filled = filled_in(self.parts, test, hidden, self.own(at).get("context"), self.levels)
        grey = self.images.train[:10_000].mean(0)
        error, flat = (np.sqrt(np.mean((each - test.astype(float))[hidden] ** 2)) for each in (filled, grey + 0.0 * test))
        masked = np.where(hidden, (self.levels - 1) * 0.3, test)
        kinds = [np.stack(each) for each in zip(*(np.split(x, len(halves)) for x in (masked, filled, test)), strict=True)]
        names = ("given", "filled in", "truth")
        blocks = [Block(each, name, () if i % 2 else names) for i, (name, each) in enumerate(zip(halves, kinds, strict=True))]
        note = f"By the likeliest noise that fits what is given. Error, levels: {error:.1f}; of the mean image {flat:.1f}."
        self.sheet("inpainting", "Half of the pixels, filled in", note, blocks, across=2)
        return f"error of what is filled in, levels: {error:.1f}; of the mean image {flat:.1f}"

    def interpolation(self, steps=9):
        at = picks(self.images, 12, 1)
        first, last = at[:6], at[6:]
        z0, z1 = (np.asarray(self.parts.encode(self.images.test[each], **self.own(each))) for each in (first, last))
        ways = [spherical(z0, z1, t) for t in np.linspace(0, 1, steps)]
        context = {}
        if self.classes:
            ends = [self.own(each)["context"] for each in (first, last)]
            context["context"] = np.concatenate([(1 - t) * ends[0] + t * ends[1] for t in np.linspace(0, 1, steps)])
        images = self.parts.decode(np.concatenate(ways), **context).reshape(steps, len(first), *self.size).swapaxes(0, 1)
        note = "Along the sphere of the noise; the first and the last are images of the test."
        self.sheet("interpolation", "From one image to another", note, [Block(images)])

    def manifold(self, steps=9):
        """Four images and all between them, by two angles."""
        at = picks(self.images, 4, 2)
        z = np.asarray(self.parts.encode(self.images.test[at], **self.own(at)))
        a, b = np.meshgrid(*[np.linspace(0, np.pi / 2, steps)] * 2, indexing="ij")
        shares = np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a) * np.cos(b), np.sin(a) * np.sin(b)], -1)
        shares = shares.reshape(-1, 4)
        context = {"context": (shares**2 @ self.own(at)["context"]).astype(np.float32)} if self.classes else {}
        images = self.parts.decode(jnp.asarray(np.tensordot(shares, z, 1)), **context).reshape(steps, steps, *self.size)
        self.sheet("manifold", "What four images span", "The corners are images of the test.", [Block(images)])

    def directions(self):
        """Ways to move images: a name, the places of training images at the end and at the start, and of a test image."""
        images = self.images
        if images.attributes is not None:
            found = []
            for name, has in zip(images.attribute_names, images.attributes.T, strict=True):
                if has.any() and not has.all():
                    found.append((name, np.flatnonzero(has), np.flatnonzero(has == 0), picks(images, 1, len(found))[0]))
            return found[:6]
        found = []
        for label in range(min(6, len(images.names))):
            other = (label + 1) % len(images.names)
            ends = [np.flatnonzero(images.train_labels == each) for each in (other, label)]
            own = np.flatnonzero(images.test_labels == label)
            if min(map(len, (*ends, own))):
                found.append((f"{images.names[label]} to {images.names[other]}", *ends, own[0]))
        return found

    def edits(self, directions):
        """Test images moved along the difference of mean noise, at -1 to 1."""
        rows, steps = [], (-1.0, -0.5, 0.0, 0.5, 1.0)
        for _, there, here, at in directions:
            ends = [np.asarray(self.parts.encode(self.images.train[each[:MEANS]])).mean(0) for each in (there, here)]
            z = np.asarray(self.parts.encode(self.images.test[at : at + 1]))
            rows.append(self.parts.decode(jnp.asarray(np.concatenate([z + step * (ends[0] - ends[1]) for step in steps]))))
        names, note = tuple(name for name, *_ in directions), "By this share of the difference of the mean noise of both ends."
        self.sheet(
            "edits",
            "Images moved",
            note,
            [Block(np.stack(rows), "", names, tuple(f"{step:+g}" if step else "0" for step in steps))],
        )

    def spectrum(self):
        """The scales of NICE's noise, and images decoded of the largest alone."""
        log_scale = np.asarray(self.result.params["bijection"][-1][-1][-1]["log_scale"]).ravel()
        order = np.argsort(log_scale)
        figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
        axis.plot(np.exp(-log_scale[order]))
        axis.set(ylim=(0, None), xlabel="number of the noise, sorted", ylabel="standard deviation, 1 / s")
        figure.savefig(self.folder / "spectrum.png", dpi=150)
        plt.close(figure)
        at = picks(self.images, 12)
        z, rows = np.asarray(self.parts.encode(self.images.test[at], **self.own(at))), []
        counts = [n for n in (4, 16, 32) if n < len(order)]
        for count in (*counts, len(order)):
            kept = np.zeros_like(z)
            kept[:, order[:count]] = z[:, order[:count]]
            rows.append(self.parts.decode(jnp.asarray(kept), **self.own(at)))
        names = (*(f"largest {n}" for n in counts), "all")
        note = "Decoded of the numbers of the noise with the largest scales, all others 0."
        self.sheet("largest", "Of few numbers", note, [Block(np.stack(rows), "", names)])

    def accuracy(self):
        """How often the class under which a test image has the fewest bits is its own."""
        test, labels = self.images.test[:TEST], self.images.test_labels[:TEST]
        count = len(self.images.names)
        contexts = [self.context(np.full(len(test), label)) for label in range(count)]
        bits = [flows.bits_per_dim(self.result, test, context, batch_size=PIECE).each for context in contexts]
        right = np.argmin(bits, 0) == labels
        error = right.std() / len(right) ** 0.5
        return f"class of a test image by Bayes' rule: right {right.mean():.1%} +- {error:.1%}"

    def class_edits(self):
        count = len(self.images.names)
        at = picks(self.images, count)
        z = self.parts.encode(self.images.test[at], **self.own(at))
        each = self.context(np.tile(np.arange(count), count))
        images = self.parts.decode(jnp.repeat(z, count, 0), context=each).reshape(count, count, *self.size)
        images = np.concatenate([self.images.test[at][:, None], images], 1)
        labels = self.images.test_labels[at]
        marked = tuple((i, int(label) + 1) for i, label in enumerate(labels))
        note = "Encoded as of its own class (framed), decoded as of every one."
        block = Block(images, "", (), ("image", *self.images.names), marked, apart=1)
        self.sheet("classes", "The same noise, another class", note, [block])

    def likelihood(self):
        count = min(TEST, len(self.images.test))
        count = count // (2 * PIECE) * 2 * PIECE or count
        test, labels = self.images.test[:count], self.images.test_labels[:count] if self.classes else None
        half = len(test) // 2
        kinds = {"test images": test[half:]} | self.others
        usual = {"reference_context": self.context(labels[:half])} if self.classes else {}
        figures, lines = {}, []
        for what, each in kinds.items():
            own = labels[half:] if what == "test images" and self.classes else labels
            context = self.context(np.resize(own, len(each))) if self.classes else None
            bits = flows.bits_per_dim(self.result, each, context, batch_size=PIECE)
            alone, p = (
                flows.diagnostics.typicality(self.result, each, test[:half], group, context=context, **usual)
                for group in (1, GROUP)
            )
            figures[what] = each[0], bits.each, p
            likelier = np.mean(bits.each < np.median(figures["test images"][1]))
            shares = "".join(f"{share:12.0%}" for share in (likelier, np.mean(alone < 0.05), np.mean(p < 0.05)))
            lines.append(f"{what:20}{bits.mean:8.3f} +- {bits.error:.3f}{shares}")
        whole = flows.bits_per_dim(self.result, test, self.context(labels), batch_size=PIECE)
        note = f"Fewer bits are a higher likelihood. Small p-values: {GROUP} images together are too likely, or too unlikely."
        histograms(self.folder / "likelihood.png", "Likelihood and typicality", note, figures, self.levels, GROUP)
        head = f"{'':20}{'bits':>8}{'':9}{'likelier':>12}{'untypical':>12}{f'{GROUP} of them':>12}"
        slopes = self.parts.logit.direct_fun(self.parts.logit.params, test, rng=jax.random.key(0))[1]
        nats = -whole.each * test[0].size * np.log(2) - np.asarray(slopes, float)
        summary = f"{len(test):,} test images: {whole.mean:.3f} +- {whole.error:.3f} bits per dimension, in logit space "
        summary += f"{nats.mean():.1f} +- {nats.std() / len(nats) ** 0.5:.1f} nats an image"
        return "\n".join([summary, head, *lines, "likelier: than the median test image; untypical: a p-value below 0.05"])


def neighbours(images, train, count):
    """The nearest of the training images, (images, count), and their root mean square distances."""
    x = images.reshape(len(images), -1).astype(np.float32)
    squares = []
    for piece in np.array_split(train, max(1, len(train) // 10_000)):
        y = piece.reshape(len(piece), -1).astype(np.float32)
        squares.append((y * y).sum(1) - 2 * x @ y.T)
    distances = np.concatenate(squares, 1) + (x * x).sum(1, keepdims=True)
    at = np.argsort(distances, 1)[:, :count]
    return at, np.sqrt(np.maximum(np.take_along_axis(distances, at, 1), 0) / x.shape[1])


def filled_in(parts, images, hidden, context, levels):
    """Hidden pixels of the likeliest noise, from 0, whose image is near to the pixels that are seen; these stay."""
    seen, ends = parts.to_line(images), [parts.to_line(np.full(images.shape, end)) for end in (0, levels - 1)]

    def decoded(z):
        return jnp.clip(parts.from_noise(z, context), *ends)

    def loss(z):
        misses = jnp.where(hidden, 0.0, decoded(z) - seen) / MISS
        return jnp.sum(misses**2) / 2 - jnp.sum(parts.log_prior(z, context))

    @jax.jit
    def descend(z):
        optimizer = optax.adam(optax.cosine_decay_schedule(0.1, DESCENT), b2=0.99)

        def step(carry, _):
            z, state = carry
            updates, state = optimizer.update(jax.grad(loss)(z), state)
            return (z + updates, state), None

        return jax.lax.scan(step, (z, optimizer.init(z)), length=DESCENT)[0][0]

    z = parts.to_noise(seen, context)
    return parts.to_pixels(jnp.where(hidden, decoded(descend(0 * z)), seen))


def spherical(a, b, t):
    """Between rows, along an arc about 0."""
    lengths = [np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b)]
    cosine = (a * b).sum(1, keepdims=True) / (lengths[0] * lengths[1])
    angle = np.arccos(np.clip(cosine, -0.999999, 0.999999))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
