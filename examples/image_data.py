"""Images to train on: handwritten digits, clothes, the binary files of CIFAR-10, or a folder of pictures.

All are whole numbers 0 .. levels - 1 of one byte, (images, height, width, channels), shuffled once and for all where the source
does not say which are for the test.
"""

import csv
import gzip
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
THINGS = ("aeroplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry")
NUMERALS = tuple("0123456789")
FEWEST = 120  # images of a folder
MOST = 480  # images of a kind that is none
KINDS = {".png", ".jpg", ".jpeg"}
BYTES, LABELS = 3, 1  # axes of the two kinds of idx files


class Images(NamedTuple):
    train: np.ndarray
    test: np.ndarray
    levels: int
    names: tuple[str, ...] = ()  # of the classes, if there are any
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    attribute_names: tuple[str, ...] = ()
    attributes: np.ndarray | None = None  # of the training images, 0 and 1


class Source(NamedTuple):
    read: Callable[[Path], Images]  # of a folder
    folder: Path | None  # by default
    help: str


def digits(_folder=None):
    """8 x 8 pixels of 17 levels: 1,437 to train on, 360 for the test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError("digits need the package scikit-learn: pip install scikit-learn") from None
    data = load_digits()
    train, test = np.split(np.random.default_rng(0).permutation(len(data.images)), [1437])
    pixels = data.images.astype(np.uint8)[..., None]
    return Images(pixels[train], pixels[test], 17, NUMERALS, data.target[train], data.target[test])


def found(folder, name, remedy):
    """The file of that name, packed or not."""
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise ValueError(f"{folder} has no {name}.gz; {remedy}")


def idx(path, axes):
    """An array of bytes: a magic number, whose last byte counts the axes, their lengths, and the values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    start = 4 * (axes + 1)
    if len(content) < start or content[:4] != bytes((0, 0, 8, axes)):
        raise ValueError(f"{path} is no whole idx file of bytes with {axes} axes")
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(content) != start + math.prod(shape):
        raise ValueError(f"{path} is no whole idx file: {len(content) - start:,} values; expected {shape} of them")
    if not math.prod(shape):
        raise ValueError(f"{path} is an empty idx file, of {shape} values; expected some")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def of_idx(names, remedy):
    def read(folder):
        parts = []
        for part in ("train", "t10k"):
            pixels = idx(found(folder, f"{part}-images-idx3-ubyte", remedy), BYTES)
            labels = idx(found(folder, f"{part}-labels-idx1-ubyte", remedy), LABELS)
            if len(pixels) != len(labels) or labels.max() >= len(names):
                raise ValueError(f"{folder}: the labels of {part} do not belong to its images")
            if parts and pixels.shape[1:] != parts[0].shape[1:3]:
                raise ValueError(
                    f"{folder}: images of {pixels.shape[1:]} pixels for the test, of {parts[0].shape[1:3]} to train on"
                )
            parts += [pixels[..., None], labels]
        train, train_labels, test, test_labels = parts
        return Images(train, test, 256, names, train_labels, test_labels)

    return read


def cifar10(folder):
    """Batches of 10,000 rows: a label, then 32 x 32 pixels of red, of green and of blue."""
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    images, labels = [], []
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}; unpack the binary version of CIFAR-10 there (cs.toronto.edu/~kriz)")
        content = np.fromfile(folder / name, np.uint8)
        if not content.size or content.size % 3073:
            raise ValueError(f"{folder / name} has {content.size:,} bytes; expected rows of 3,073")
        rows = content.reshape(-1, 3073)
        if rows[:, 0].max() >= len(THINGS):
            raise ValueError(f"{folder / name} has the label {rows[:, 0].max()}; expected 0 to 9")
        images.append(np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)))
        labels.append(rows[:, 0])
    train, train_labels = np.concatenate(images[:-1]), np.concatenate(labels[:-1])
    return Images(train, images[-1], 256, THINGS, train_labels, labels[-1])


def pictures(folder):
    """All pictures of a folder, which are of one size: grey if each is, else in colour. A tenth is for the test."""
    try:
        from PIL import Image
    except ImportError:
        raise ValueError("a folder of pictures needs the package pillow: pip install pillow") from None
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS) if folder.is_dir() else []
    if len(paths) < FEWEST:
        raise ValueError(f"{folder} has {len(paths)} PNG or JPEG files; expected {FEWEST} or more")
    read = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                picture.load()
        except Exception as error:  # of any kind: what decoders raise, and that a picture is too large
            raise ValueError(f"{path} cannot be read: {error}") from None
        if picture.mode[0] in "IF":
            raise ValueError(f"{path} has pixels of more than one byte; expected PNG or JPEG files of 256 levels")
        if read and picture.size != read[0].size:
            sizes = ["{} x {}".format(*each.size) for each in (picture, read[0])]
            raise ValueError(f"{path} is of {sizes[0]} pixels, {paths[0].name} of {sizes[1]}; expected one size")
        read.append(picture)
    mode = "L" if all(picture.mode in ("1", "L", "LA") for picture in read) else "RGB"
    pixels = np.stack([np.asarray(picture.convert(mode)) for picture in read])
    order = np.random.default_rng(0).permutation(len(pixels))
    test, train = np.split(pixels.reshape(*pixels.shape[:3], -1)[order], [len(pixels) // 10])
    names, attributes = attributes_of(folder / "attributes.csv", [path.name for path in paths])
    own = None if attributes is None else attributes[order][len(test) :]
    return Images(train, test, 256, attribute_names=names, attributes=own)


def attributes_of(path, files):
    """Names, and 0 or 1 for each file and name, of a table whose first column has the names of files; nothing without one."""
    if not path.is_file():
        return (), None
    try:
        with path.open(newline="", encoding="utf-8-sig") as table:
            head, *rows = [row for row in csv.reader(table) if row] or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    lines = {row[0]: row[1:] for row in rows}
    if len(lines) < len(rows):
        raise ValueError(f"{path} names a file twice; expected one line for each picture")
    if missing := [name for name in files if name not in lines]:
        form = "names in the first line, then a line for each picture: its file, and 0 or 1 for each name, with commas between"
        raise ValueError(f"{path} names no {missing[0]}; expected {form}")
    values = [lines[name] for name in files]
    for name, row in zip(files, values, strict=True):
        if len(row) != len(head) - 1 or not set(row) <= {"0", "1"}:
            raise ValueError(f"{path} has {','.join(row)[:60]!r} for {name}; expected {len(head) - 1} of 0 or 1")
    return tuple(head[1:]), np.array(values, int)


DEBIAN = "install Debian's package dataset-fashion-mnist, or name a folder with its four idx files by --path"
IDX = "get the four idx files of MNIST (yann.lecun.com/exdb/mnist), and name their folder by --path"
SOURCES = {
    "digits": Source(digits, None, "scikit-learn's, 8 x 8"),
    "fashion-mnist": Source(of_idx(CLOTHES, DEBIAN), Path("/usr/share/datasets/fashion-mnist"), "clothes, 28 x 28"),
    "mnist": Source(of_idx(NUMERALS, IDX), None, "handwritten digits, 28 x 28"),
    "cifar10": Source(cifar10, None, "in colour, 32 x 32"),
    "folder": Source(pictures, None, "PNG or JPEG files of one size"),
}


def load(name, folder=None):
    """The images of a source; a ValueError of one line where its files are not as they should be."""
    source = SOURCES[name]
    if name == "digits" and folder is not None:
        raise ValueError(f"digits are those of scikit-learn; expected no --path, got {folder}")
    folder = folder or source.folder
    if folder is None and name != "digits":
        raise ValueError(f"{name} is read from files; expected their folder by --path")
    return source.read(folder)


def others(name, images):
    """Images that are none of these, by what they are: of their size and levels."""
    from scipy import ndimage

    test, top = images.test[:MOST].astype(float), images.levels - 1
    made = {"the test, blurred": ndimage.gaussian_filter(test, (0, test.shape[1] / 20, test.shape[2] / 20, 0))}
    made["the test, faded"] = 0.5 * test
    made["black and white"] = np.where(test > top / 2, top, 0)
    made["one grey each"] = np.broadcast_to(test.mean((1, 2), keepdims=True), test.shape)
    if name == "fashion-mnist":
        larger = ndimage.zoom(digits().test * (top / 16), (1, 2.5, 2.5, 1), order=1, grid_mode=True, mode="nearest")
        made = {"resized digits": np.pad(larger, ((0, 0), (4, 4), (4, 4), (0, 0))), **made}  # in a margin, as MNIST's
    return {what: np.clip(np.round(each), 0, top).astype(np.uint8) for what, each in made.items()}
