"""What `fit` says of rounded values: noise that is added twice, to logits, off the grid, or not at all."""

import warnings
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from common import error_of

import flows
from flows import ActNorm, Dequantize, FixedAffine, Flow, Serial
from flows.training import DataWarning
from flows.training.data import read as reading
from flows.training.data.prepare import through_first
from flows.training.data.read import read
from flows.training.options import Options

IMAGES = np.random.default_rng(0).integers(0, 17, size=(300, 4, 4, 1)).astype(np.uint8)
TABLE = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32) * [1, 5]
WITH_LEVELS = Flow(Serial(Dequantize(1.0, levels=17), ActNorm()))
WITHOUT = Flow(Serial(Dequantize(1.0), ActNorm()))


def fitted(model, x, **given):
    return flows.fit(0, model, x, max_epochs=1, batch_size=300, folds=1, verbose=0, **given)


def warning_of(model, x, **given):
    with pytest.warns(DataWarning) as caught:
        fitted(model, x, **given)
    return " ".join(str(each.message) for each in caught)


def silent(model, x, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        return fitted(model, x, **given)


@pytest.mark.parametrize("model", [WITH_LEVELS, WITHOUT], ids=["levels", "no levels"])
def test_noise_is_added_once_and_before_logits(model):
    assert "Leave dequantize= out: the model dequantises itself" in error_of(lambda: fitted(model, IMAGES, dequantize=1.0))
    for standardize in (True, False):
        told = error_of(lambda standardize=standardize: fitted(model, IMAGES, support=(-0.5, 16.5), standardize=standardize))
        assert "support= takes channel 0 to the line before Dequantize(" in told and "give dequantize=1.0, support=" in told


def test_candidates_of_a_selection_are_told_of_noise_too():
    quick = {"max_epochs": 1, "validation": IMAGES[:50], "batch_size": 250, "verbose": 0}
    chosen = flows.select(0, {"a": WITH_LEVELS, "b": Flow(ActNorm())}, IMAGES[50:], dequantize=1.0, **quick)
    assert "a  failed: fit: dequantize= adds noise to channel 0, and so does Dequantize(levels=17)" in str(chosen)


def test_noise_and_support_of_other_columns_may_stand_beside_it():
    table = np.stack([np.round(TABLE[:, 1]), TABLE[:, 0], np.round(TABLE[:, 1]) ** 2], 1)
    own = Flow(Serial(Dequantize((1.0, 0.0, 0.0)), ActNorm()))
    silent(own, table, dequantize={2: 1.0}, support={1: (-9, 9)})
    told = error_of(lambda: fitted(Flow(Dequantize((1.0, 0.0, 1.0))), table, dequantize={0: 1.0}, support={2: (0, 999)}))
    assert "support= takes column 2 to the line" in told
    assert "adds noise to column 0" in error_of(lambda: fitted(own, table, dequantize={0: 1.0, 2: 1.0}))


def test_the_grid_is_looked_for_where_the_noise_is_added():
    silent(Flow(Serial(FixedAffine(16.0), Dequantize(1.0, levels=17), ActNorm())), IMAGES / 16, standardize=False)
    narrow = Flow(Serial(FixedAffine(1 / 16), Dequantize(1.0), ActNorm()))
    told = error_of(lambda: fitted(narrow, IMAGES, standardize=False))
    assert "behind FixedAffine(scale=0.0625)" in told and "0.0625, to which it is rounded" in told


def test_rounded_pixels_without_noise_are_warned_of():
    told = warning_of(Flow(ActNorm()), IMAGES)
    assert "channel 0 holds whole numbers" in told and "dequantize=1, the step" in told and "support=(0, 16)" in told
    assert "dequantize=0.0625" in warning_of(Flow(ActNorm()), IMAGES / 16)
    silent(WITH_LEVELS, IMAGES)
    silent(Flow(ActNorm()), IMAGES, dequantize=1.0, support=(0, 16))


def test_pixels_are_looked_at_in_all_places():
    """A stride of as many pixels as a row of an image has would see its first column alone, which is empty."""
    images = np.random.default_rng(0).random((25_000, 4, 8, 1)).astype(np.float32)
    images[:, :, 0] = 0.0
    assert "is to be dequantised in steps of 1, but" in error_of(lambda: fitted(Flow(ActNorm()), images, dequantize=1.0))
    few = IMAGES.astype(np.float32)
    few.reshape(-1)[::50] += 0.25
    assert "but 2% of its values, such as" in warning_of(Flow(ActNorm()), few, dequantize=1.0)


def test_few_large_images_of_a_file_are_held_out(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "HELD_OUT", (reading.HELD_OUT[0], 2**12))
    np.save(tmp_path / "images.npy", np.tile(IMAGES, (4, 2, 2, 1)))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    found = read(mapped, Options(folds=1, verbose=0, batch_size=100), jax.random.key(0))
    assert found.held_out.x.shape == (2**12 // 64, 8, 8, 1)
    epoch = np.concatenate([chunk.take(slice(None)).numbers for chunk in found.stream.chunks(0)])
    assert not set(epoch) & set(found.others) and len(set(epoch)) == len(epoch) > 1_000


def test_noise_of_equal_layers_is_compiled_once(caplog):
    split = read(TABLE[:9], Options(validation=TABLE[:9]), jax.random.key(0))
    view, columns = SimpleNamespace(curved=np.full(2, False)), SimpleNamespace(context_scale=None)
    facts = SimpleNamespace(first=(Dequantize(0.3),), region=None, view=view, columns=columns)  # a step that no other test has
    with jax.log_compiles():
        for count in range(2):
            caplog.clear()
            through_first(split, facts, jax.random.key(count))
            compiled = [each.message for each in caplog.records if "Compiling" in each.message]
            assert count or compiled, "the test cannot see compilations"
    assert not compiled, compiled
