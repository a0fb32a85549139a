"""The preparations of the tabular sets, on small files in the form of the published ones."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def data():
    spec = importlib.util.spec_from_file_location("tabular_data", FOLDER / "tabular_data.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


DRAW = np.random.default_rng(0)


def test_power_is_six_columns_with_noise_of_a_step(data, tmp_path):
    raw = np.round(DRAW.normal(size=(1000, 8)), 1) + np.arange(8) * 100
    np.save(tmp_path / "data.npy", raw)
    split = data.load("power", tmp_path)
    assert [part.shape for part in split] == [(810, 6), (90, 6), (100, 6)]
    rest = np.concatenate(split[:2])
    np.testing.assert_allclose(rest.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(rest.std(0), 1, atol=1e-4)
    # Columns 0, 2, 4 .. 7 of the source, of which time alone has no noise.
    assert len(np.unique(rest[:, 5])) < 100 < 890 < min(len(np.unique(rest[:, i])) for i in range(2, 5))


def test_gas_is_a_quarter_in_any_order_and_one_of_columns_that_agree(data, tmp_path):
    own = DRAW.normal(size=(800, 8))
    own[:, 0] = np.arange(800)
    sensors = np.repeat(own, 2, axis=1) + 1e-3 * DRAW.normal(size=(800, 16))
    with (tmp_path / "ethylene_CO.txt").open("w") as file:
        print("Time (seconds), CO conc (ppm), Ethylene conc (ppm), sensor readings (16 channels)", file=file)
        np.savetxt(file, np.column_stack([DRAW.normal(size=(800, 3)), sensors]))
    split = data.load("gas", tmp_path)
    assert [part.shape for part in split] == [(162, 8), (18, 8), (20, 8)]
    whole = np.concatenate(split)
    np.testing.assert_allclose(whole.std(0, ddof=1), 1, rtol=1e-4)
    assert np.abs(np.corrcoef(whole.T) - np.eye(8)).max() < 0.4
    time = whole[:, 0]
    assert abs(np.corrcoef(time, np.arange(200))[0, 1]) < 0.3 and len(np.unique(time.round(3))) == 200


def test_hepmass_keeps_the_new_particle_and_features_without_atoms(data, tmp_path):
    def rows(n, extra):
        x = np.column_stack([DRAW.integers(2, size=n), DRAW.normal(size=(n, 28))])
        x[:, 3:10] = DRAW.integers(3, size=(n, 7))  # seven features with few values
        return np.column_stack([x, np.zeros((n, extra))])

    train, test = rows(400, 0), rows(100, 1)
    for name, x in (("train", train), ("test", test)):
        np.savetxt(tmp_path / f"1000_{name}.csv", x, delimiter=",", header="label," * (x.shape[1] - 1) + "x", comments="")
    split = data.load("hepmass", tmp_path)
    ones = int(train[:, 0].sum())
    assert [part.shape for part in split] == [(ones - ones // 10, 21), (ones // 10, 21), (int(test[:, 0].sum()), 21)]
    kept = train[train[:, 0] == 1][:, [1, 2, *range(10, 29)]]
    np.testing.assert_allclose(split.train[0], ((kept - kept.mean(0)) / kept.std(0))[0], rtol=1e-4)


def test_miniboone_is_standardised_without_its_test_rows(data, tmp_path):
    np.save(tmp_path / "data.npy", 5 + 3 * DRAW.normal(size=(500, 43)))
    split = data.load("miniboone", tmp_path)
    assert [part.shape for part in split] == [(405, 43), (45, 43), (50, 43)]
    np.testing.assert_allclose(np.concatenate(split[:2]).mean(0), 0, atol=1e-5)
    assert np.abs(split.test.mean(0)).max() > 1e-3


def test_what_is_missing_is_told_with_its_source(data, tmp_path):
    for name in ("power", "gas", "hepmass", "miniboone", "bsds300"):
        with pytest.raises(SystemExit, match=rf"{name}: no --path was given; expected a folder with .*, which come from "):
            data.load(name, None)
        with pytest.raises(SystemExit, match="has no"):
            data.load(name, tmp_path)
    np.save(tmp_path / "data.npy", np.zeros((50, 5)) + np.arange(50)[:, None])
    with pytest.raises(SystemExit, match="expected 43 columns"):
        data.load("miniboone", tmp_path)
    np.save(tmp_path / "data.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        data.load("power", tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_the_program_draws_after_each_epoch(monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    monkeypatch.syspath_prepend(str(FOLDER))
    tabular = importlib.import_module("tabular")
    monkeypatch.setattr(tabular, "SHOWN", 500)
    options = "--model", "maf-split", "--num-blocks", "1", "--hidden", "8", "--epochs", "3", "--watch", "--log-interval", "1"
    monkeypatch.setattr(sys, "argv", ["tabular.py", *options, "--out", str(tmp_path)])
    stale = tmp_path / "epochs" / "moons-maf-split" / "epoch_0099.jpg"
    stale.parent.mkdir(parents=True)
    stale.write_text("of a run before")
    tabular.main()
    told = capsys.readouterr().out
    assert told.count("validation") == 3 and "test: -" in told
    assert not stale.exists() and image.open(tmp_path / "moons-maf-split.webp").n_frames == 3


def test_an_animation_has_the_last_of_many_pictures(monkeypatch, tmp_path):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.syspath_prepend(str(FOLDER))
    watch = importlib.import_module("watch")
    monkeypatch.setattr(watch, "FRAMES", 4)
    drawn = []

    def draw(epoch, path):
        drawn.append(epoch.number)
        shade = 25 * epoch.number
        image.new("RGB", (40 + epoch.number % 2, 30), (shade, shade, shade)).save(path)

    watcher = watch.Watch(tmp_path / "frames", draw, apart=2.0)
    watcher.animate(tmp_path / "none.webp")
    for number in range(10):
        watcher(SimpleNamespace(number=number, max_epochs=10, seconds=1.0 * number))
    assert drawn == [0, 2, 4, 6, 8, 9] and not (tmp_path / "none.webp").exists()
    watcher.animate(tmp_path / "some.webp")
    with image.open(tmp_path / "some.webp") as shown:
        assert shown.n_frames <= 4 and shown.size == (40, 30)
        shown.seek(shown.n_frames - 1)
        assert abs(shown.convert("RGB").getpixel((5, 5))[0] - 225) < 20
