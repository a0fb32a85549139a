"""Files that an earlier version wrote: they load for good, and say of their rows what they said then.

`files/make.py` tells how the files come about. They are never written again: a change that they do not survive needs a reader
of what was written before.
"""

import hashlib
import re
from collections import OrderedDict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from files.make import TOLERANCE, answers, distance
from files.own import OWN

import flows
from flows.persistence.formats import as_then, layout_then

FOLDERS = sorted(Path(__file__).parent.glob("files/format_*"))
# Variants of a model, which the slow tests have a look at; and splines, of which one file has all.
AGAIN = re.compile(r"_(conditional|plain|loop|unrolled|[0-9]+)(_autoregressive)?$|^nsf_.*(linear|quadratic|cubic)")
DEEP = ("maf_5", "nsf_5", "nsf_7", "nsf_11", "realnvp_6")  # but for some that are a loop by default, or were none then
FILES = [
    pytest.param(
        path,
        id=f"{path.parent.name}/{path.stem}",
        marks=[pytest.mark.slow] if AGAIN.search(path.stem) and path.stem not in DEEP else [],
    )
    for folder in FOLDERS
    for path in sorted(folder.glob("*.flows"))
]

# What each folder held when it was written: how many models, and the digest of all its files.
WRITTEN = {
    "format_1": (104, "31b65623ff413ab992860240531bb6707d51aafab9e8d9e3f0179628d00031e0"),
    "format_2": (13, "b20432e89dfac8706b1b35a41ce0229ec4dcca2c2684be3231292567972a0640"),
    "format_3": (6, "19bb80a8974fb7a8c1a0fa52f8d6ea8a01fbaed4686de9871b358fac340dba14"),
    "format_4": (10, "2dacff464eb634d5797fffc05652d5e22730dcad810a95cfb4712b7b51b872ef"),
    "format_5": (5, "570271f95b06416c3a4a2cba6fd27dd963155358ef1343f74d87877beecf7d3a"),
}

# What the first version had that a model is made of.
FIRST = """
BNAF GMM IAF MADE MAF MLP NAF NICE NSF SOS UMNN ActNorm AffineCoupling AffineCouplingSplit Autoregressive BatchNorm
BlockAutoregressive Coupling Dequantize Exp FixedAffine FactorOut Elementwise FixedInvertibleLinear Flow GaussianizationFlow
Glow Householder Invert InverseAutoregressive InvertibleLinear Joint Laplace LeakyReLU Logistic LogisticCDF Logit Mixture
MixtureMADE NeuralSplineCoupling Normal NormalCDF Power RealNVP Repeat Reverse Scale Serial Shuffle Sigmoid Softplus Squeeze
Standardize StandardizedContext StudentT Tanh Uniform MaskedMLP MaskedResidual Residual Additive Affine Gated Inverse
CircularRationalQuadratic Cubic Linear LinearRational Quadratic RationalQuadratic MixtureCDF DeepSigmoidal Gaussianization
Bernstein SumOfSquares MonotonicNetwork TwoMoons Spirals EightGaussians Checkerboard Rings Pinwheel
"""


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


def test_early_models_of_images_keep_their_scales_and_networks():
    then = {"constructor": "GlowImage", "arguments": {"num_layers": 2, "levels": 3}}
    assert as_then(then, 6)["arguments"] == {"num_layers": 2, "num_scales": 3, "squash": None}
    then = {"constructor": "NSFImage", "arguments": {"levels": 1, "squash": 3.0}}
    assert as_then(then, 6)["arguments"] == {"num_scales": 1, "squash": 3.0}
    then = {"constructor": "Dequantize", "arguments": {"levels": 17}}
    assert as_then(then, 6) == then


@pytest.mark.usefixtures("relaxed")  # as some of the networks are other libraries'
@pytest.mark.parametrize("path", FILES)
def test_an_old_file_says_what_it_said(path):
    given, expected = parted(rows_of(path.parent)[path.stem])
    got = answers(flows.load(path, constructors=OWN), given)
    assert set(got) == set(expected)
    for of, value in got.items():
        assert value.dtype == np.float32 and value.shape == expected[of].shape
        off = distance(value, expected[of])
        assert off <= TOLERANCE, f"{of} is {value}, expected {expected[of]}: off by {off:.1e}"


def test_only_plain_dicts_are_read_as_engines_of_before():
    """The leaves of another mapping keep an order of their own."""
    engine = {"conditioner": (1.0,), "transformer": (), "fixed": {}}
    assert layout_then([engine], 1) == [(1.0,)] and layout_then([engine], 2) == [engine]
    ordered = OrderedDict(shift=1.0, log_scale=2.0)
    assert layout_then(ordered, 1) is ordered


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_rows_tell_models_apart(folder):
    """A test that holds for any params would be none."""
    for name, rows in rows_of(folder).items():
        given, expected = parted(rows)
        assert len(given["x"]) == 4 and set(expected) in ({"log_pdf"}, {"outputs", "log_det"}), name
        assert all(np.isfinite(each).all() and np.abs(each).max() < 1000 for each in rows.values()), name
        main = expected.get("log_pdf", expected.get("outputs"))
        assert len(np.unique(main.round(4), axis=0)) == len(main), f"{name}: two rows look alike"


def test_the_files_are_those_that_were_written():
    """None has gone, and none was written again by a later version, which would prove nothing."""
    assert [folder.name for folder in FOLDERS] == sorted(WRITTEN)
    for folder in FOLDERS:
        files = sorted(folder.iterdir())
        digest = hashlib.sha256(b"".join(hashlib.sha256(each.name.encode() + each.read_bytes()).digest() for each in files))
        assert (len(files) - 1, digest.hexdigest()) == WRITTEN[folder.name]
        assert {each.stem for each in files if each.suffix == ".flows"} == set(rows_of(folder))


def test_every_public_model_and_layer_of_the_first_version_is_in_a_file():
    """As they were then: what a later version adds is not expected of its files."""
    held = b"".join(path.read_bytes() for path in FOLDERS[0].glob("*.flows"))
    names = {name.decode() for name in re.findall(rb'constructor\\":\\"(?:\w+\.)?(\w+)\\"', held)}
    assert not set(FIRST.split()) - names
