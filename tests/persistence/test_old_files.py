"""Files that an earlier version wrote: they load for good, and say of their rows what they said then.

`files/make.py` tells how the files come about. They are never written again: a change that they do not survive needs a reader
of what was written before.
"""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from files.make import OWN, TOLERANCE, answers, distance, names_in

import flows
from flows.core.constructors import is_constructor

FOLDERS = sorted(Path(__file__).parents[1].glob("files/format_*"))
# Models that compile long, which the slow tests have a look at; their parts are in other files as well.
LONG = ("bnaf", "bnaf_of_a_context", "ffjord", "glowimage", "naf", "nsf_of_a_context", "realnvpimage", "umnn")
FILES = [
    pytest.param(path, id=f"{path.parent.name}/{path.stem}", marks=[pytest.mark.slow] if path.stem in LONG else [])
    for folder in FOLDERS
    for path in sorted(folder.glob("*.flows"))
]

# What each folder held when it was written: how many models, and the digest of all its files.
WRITTEN = {
    "format_7": (110, "45a9564f0c7ca428facd406f4126551b411a997963f1fdb780c76ed40a10072b"),
    "format_7_any_subset": (3, "9b940a440aa3bd6ab6515016d3581c69bc56ce88d09e071a9aeaf6944b174b59"),
    "format_7_attention": (4, "2f04e4575820af2e25f7e890beb5d744efe3a940677a0c614bab483468e131b6"),
    "format_7_chain_rule": (1, "1fad7bf32d971e393ad99f6b7afc85fff75cde4b69ceb60472cd160adbcc393e"),
    "format_7_codes": (1, "7a7a9f561c9d2b2d34b6f1891fa29955daa9dc289133ce9a10aa1536fae03bfc"),
    "format_7_draws": (12, "3bddbd6b9daa162ea05c9e2cf9b9ca9f83866083d4e07ee56127d7f0cde56799"),
    "format_7_networks": (3, "d57ed4b85817e086c5278ac4f4c74c0093857e850602653a02a3b4526053b860"),
}

DRAWN = 2e-5  # of layers that draw, whose numbers were computed in float32

# Their arguments are functions or modules of other libraries, which no file can hold.
NEVER_WRITTEN = {"FromFunction", "FromEquinox", "FromLinen", "FromNNX", "FromStax"}


@cache
def rows_of(folder):
    """By the name of the model: its rows, its contexts, and what is expected of them."""
    rows = {}
    with np.load(folder / "rows.npz", allow_pickle=False) as arrays:
        for key, array in arrays.items():
            name, of = key.split("/")
            rows.setdefault(name, {})[of] = array
    return rows


def parted(rows):
    """What a model is given, and what is expected."""
    given = {of: rows[of] for of in ("x", "context") if of in rows}
    return given, {of: rows[of] for of in rows if of not in given}


@pytest.mark.parametrize("path", FILES)
def test_an_old_file_says_what_it_said(path):
    given, expected = parted(rows_of(path.parent)[path.stem])
    got = answers(flows.load(path, constructors=OWN), given)
    assert set(got) == set(expected)
    for of, value in got.items():
        assert value.dtype == np.float32 and value.shape == expected[of].shape
        off = distance(value, expected[of])
        most = DRAWN if path.parent.name == "format_7_draws" else TOLERANCE
        assert off <= most, f"{of} is {value}, expected {expected[of]}: off by {off:.1e}"


# Of these all rows are alike: densities that are constant.
CONSTANT = ("sphereuniform", "circularuniform", "datasets_checkerboard", "datasets_picture")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_rows_tell_models_apart(folder):
    """A test that holds for any params would be none."""
    for name, rows in rows_of(folder).items():
        given, expected = parted(rows)
        assert len(given["x"]) == 4 and set(expected) in ({"log_pdf"}, {"outputs", "log_det"}), name
        assert all(np.isfinite(each).all() and np.abs(each).max() < 1000 for each in rows.values()), name
        main = expected.get("log_pdf", expected.get("outputs"))
        assert name in CONSTANT or len(np.unique(main.round(4), axis=0)) == len(main), f"{name}: two rows look alike"


def test_the_files_are_those_that_were_written():
    """None has gone, and none was written again by a later version, which would prove nothing."""
    assert [folder.name for folder in FOLDERS] == sorted(WRITTEN)
    for folder in FOLDERS:
        files = sorted(folder.iterdir())
        digest = hashlib.sha256(b"".join(hashlib.sha256(each.name.encode() + each.read_bytes()).digest() for each in files))
        assert (len(files) - 1, digest.hexdigest()) == WRITTEN[folder.name]
        assert {each.stem for each in files if each.suffix == ".flows"} == set(rows_of(folder))


def test_every_public_constructor_is_in_a_file():
    rooms = (flows, flows.transformers, flows.conditioners, flows.datasets)
    public = {name for room in rooms for name in dir(room) if is_constructor(getattr(room, name))}
    held = {name for folder in FOLDERS for name in names_in(folder)}
    assert len(held & public) > 90
    assert public - held <= NEVER_WRITTEN, sorted(public - held - NEVER_WRITTEN)
