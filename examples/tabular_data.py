"""The tabular sets of density estimation, in the preparation of Papamakarios, Pavlakou and Murray (arXiv:1705.07057).

Each is read from its published files; none of them runs code on reading, so GAS is read from its text, not from the pickle of
later collections. All columns are standardised as their preparation says.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

COLLECTION = "the collection of MAF's authors, doi.org/10.5281/zenodo.1161203"


class Split(NamedTuple):
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Source(NamedTuple):
    read: Callable[[Path], Split]  # of the folder with its files
    files: tuple[str, ...]
    origin: str
    columns: int
    width: int  # of hidden layers, as published
    activation: str = "relu"
    epochs: int = 1000  # at most
    rate: float | None = None  # from which the learning rate falls to 0; None for the constant one of the model, as published


def tenths(x):
    """The last tenth for the test, the last tenth of the rest for validation."""
    rest, test = np.split(x, [len(x) - int(0.1 * len(x))])
    train, validation = np.split(rest, [len(rest) - int(0.1 * len(rest))])
    return Split(train, validation, test)


def standardised(split, rows):
    """By the mean and standard deviation of `rows`."""
    mean, std = rows.mean(0), rows.std(0)
    return Split(*(((part - mean) / std).astype(np.float32) for part in split))


def power(folder):
    """Eight columns: the seven of the meters and the minute of the day. Reactive power and intensity are left out; the others
    but time get uniform noise of a recorded step each."""
    x = np.load(folder / "data.npy", allow_pickle=False).astype(float)
    draw = np.random.RandomState(42)
    draw.shuffle(x)
    x = np.delete(x, (1, 3), axis=1)
    voltage, active, meters = 0.01 * draw.rand(len(x), 1), 0.001 * draw.rand(len(x), 1), draw.rand(len(x), 3)
    split = tenths(x + np.hstack([active, voltage, meters, np.zeros((len(x), 1))]))
    return standardised(split, np.concatenate(split[:2]))


def gas(folder):
    """Chemical sensors under a mixture of ethylene and CO; of sensors that agree with others to 0.98, one each is kept.

    As published, of a random quarter of the file; which rows the authors drew is not known, so figures differ by chance.
    """
    x = np.loadtxt(folder / "ethylene_CO.txt", skiprows=1)[:, 3:]  # without time and the two concentrations
    x = x[np.random.RandomState(42).permutation(len(x))[: round(0.25 * len(x))]]
    while (agree := (np.corrcoef(x.T) > 0.98).sum(0) > 1).any():
        x = np.delete(x, np.flatnonzero(agree)[0], axis=1)
    return tenths(((x - x.mean(0)) / x.std(0, ddof=1)).astype(np.float32))


def hepmass(folder):
    """Collisions that made a new particle, without features whose smallest value comes more than five times."""
    train, test = (np.loadtxt(folder / f"1000_{name}.csv", delimiter=",", skiprows=1) for name in ("train", "test"))
    train, test = (rows[rows[:, 0] == 1][:, 1 : train.shape[1]] for rows in (train, test))  # the test file has a column more
    mean, std = train.mean(0), train.std(0)
    train, test = (((rows - mean) / std).astype(np.float32) for rows in (train, test))
    keep = (train == train.min(0)).sum(0) <= 5
    train, validation = np.split(train[:, keep], [len(train) - int(0.1 * len(train))])
    return Split(train, validation, test[:, keep])


def miniboone(folder):
    """Electron neutrinos, as MAF's authors cleaned them."""
    split = tenths(np.load(folder / "data.npy", allow_pickle=False).astype(float))
    return standardised(split, np.concatenate(split[:2]))


def bsds300(folder):
    """Patches of 8 x 8 pixels of photographs, their mean taken out, without the last pixel."""
    try:
        import h5py
    except ImportError:
        raise SystemExit("bsds300: the file is HDF5; to read it, pip install h5py") from None
    with h5py.File(folder / "BSDS300.hdf5", "r") as file:
        return Split(*(file[name][:].astype(np.float32) for name in ("train", "validation", "test")))


def moons(folder):
    """Two moons with noise of 0.1, made here."""
    from sklearn.datasets import make_moons

    return standardised(split := tenths(make_moons(30_000, noise=0.1, random_state=0)[0]), np.concatenate(split[:2]))


def moon_labels() -> Split:
    """Which moon each row of `moons` is of, (rows, 1)."""
    from sklearn.datasets import make_moons

    return tenths(make_moons(30_000, noise=0.1, random_state=0)[1][:, None].astype(float))


SOURCES = {
    "power": Source(power, ("data.npy",), f"{COLLECTION} (folder power); benchmarks/power_data.py makes them anew", 6, 100),
    "gas": Source(
        gas, ("ethylene_CO.txt",), "archive.ics.uci.edu, Gas sensor array under dynamic gas mixtures", 8, 100, "tanh"
    ),
    "hepmass": Source(hepmass, ("1000_train.csv", "1000_test.csv"), "archive.ics.uci.edu, HEPMASS; or " + COLLECTION, 21, 512),
    "miniboone": Source(miniboone, ("data.npy",), f"{COLLECTION} (folder miniboone)", 43, 512),
    "bsds300": Source(bsds300, ("BSDS300.hdf5",), f"{COLLECTION} (folder BSDS300)", 63, 512),
    "moons": Source(moons, (), "", 2, 64, epochs=40, rate=3e-3),
}


def load(name: str, path: Path | None) -> Split:
    """The split of a set whose files lie in the folder `path`."""
    source = SOURCES[name]
    missing = [file for file in source.files if path is None or not (path / file).is_file()]
    if missing:
        where = "no --path was given" if path is None else f"{path} has no {' and no '.join(missing)}"
        raise SystemExit(f"{name}: {where}; expected a folder with {', '.join(source.files)}, which come from {source.origin}")
    split = source.read(path)
    if any(part.ndim != 2 or part.shape[1] != source.columns for part in split):
        raise SystemExit(f"{name}: the rows have shapes {[part.shape for part in split]}; expected {source.columns} columns")
    return split
