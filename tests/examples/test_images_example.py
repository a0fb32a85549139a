"""The example of images: files of each kind, what is refused, and the program on digits, tiny."""

import gzip
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import flows

FOLDER = Path(__file__).parents[2] / "examples"
DRAW = np.random.default_rng(0)


def example(name):
    pytest.importorskip("matplotlib")
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def data():
    return example("image_data")


def said(data, name, folder):
    with pytest.raises(ValueError) as caught:
        data.load(name, folder)
    return str(caught.value)


def write_idx(path, values):
    head = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    with gzip.open(path, "wb") as file:
        file.write(head + values.tobytes())


def test_idx_files_are_read_and_judged(data, tmp_path):
    assert "dataset-fashion-mnist" in said(data, "fashion-mnist", tmp_path)
    assert "by --path" in said(data, "mnist", None) and "train-images-idx3-ubyte.gz" in said(data, "mnist", tmp_path)
    pixels, labels = DRAW.integers(0, 256, (7, 28, 28), np.uint8), np.arange(7, dtype=np.uint8)
    for part, count in (("train", 7), ("t10k", 3)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", pixels[:count])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", labels[:count])
    images = data.load("fashion-mnist", tmp_path)
    np.testing.assert_array_equal(images.train[..., 0], pixels)
    assert images.test.shape == (3, 28, 28, 1) and images.levels == 256 and images.names[images.train_labels[1]] == "trousers"
    others = data.others("fashion-mnist", images)
    assert len(others["resized digits"]) == 360
    assert all(each.shape[1:] == (28, 28, 1) and each.dtype == np.uint8 for each in others.values())
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", pixels[:3, 4:, 4:])
    assert "images of (24, 24) pixels for the test" in said(data, "mnist", tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", labels[:4])
    assert "labels of train" in said(data, "mnist", tmp_path)
    whole = gzip.compress(DRAW.bytes(1_000))
    for content in (
        b"",
        b"\0\0\10\3" + bytes(20),
        gzip.compress(bytes(100)),
        gzip.compress(b"\0\0\10\3\0\0"),
        whole[:40] + bytes(40) + whole[80:],
    ):
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
        assert "train-images-idx3-ubyte.gz" in said(data, "mnist", tmp_path)
    for part in ("images-idx3", "labels-idx1"):
        write_idx(tmp_path / f"train-{part}-ubyte.gz", (pixels if "3" in part else labels)[:0])
    assert "train-images-idx3-ubyte.gz is an empty idx file" in said(data, "mnist", tmp_path)


def test_batches_of_cifar_are_read_and_judged(data, tmp_path):
    assert "data_batch_1.bin" in said(data, "cifar10", tmp_path)
    rows = DRAW.integers(0, 256, (4, 3073), np.uint8)
    rows[:, 0] %= 10
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows.tofile(tmp_path / f"{name}.bin")
    images = data.load("cifar10", tmp_path)
    assert images.train.shape == (20, 32, 32, 3) and images.test.shape == (4, 32, 32, 3)
    assert images.test[1, 2, 3, 2] == rows[1, 1 + 2 * 1024 + 2 * 32 + 3] and images.test_labels[1] == rows[1, 0]
    rows[:2, :3072].tofile(tmp_path / "data_batch_3.bin")
    assert "rows of 3,073" in said(data, "cifar10", tmp_path)


def test_pictures_of_a_folder_are_read_and_judged(data, tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    assert "120 or more" in said(data, "folder", tmp_path / "nothing")
    for i in range(120):
        image.fromarray(np.full((8, 12), 2 * i, np.uint8)).save(tmp_path / f"{i:03}.{'png' if i % 2 else 'JPG'}")
    images = data.load("folder", tmp_path)
    assert images.train.shape == (108, 8, 12, 1) and images.test.shape == (12, 8, 12, 1) and not images.names
    assert len(np.unique(np.concatenate([images.train, images.test])[:, 0, 0])) == 120
    image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / "colour.png")
    assert data.load("folder", tmp_path).train.shape[1:] == (8, 12, 3)
    image.fromarray(np.full((8, 12), 1_000, np.uint16)).save(tmp_path / "deep.png")
    assert "deep.png has pixels of more than one byte" in said(data, "folder", tmp_path)
    (tmp_path / "deep.png").unlink()
    image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "other.png")
    assert "other.png is of 9 x 8 pixels" in said(data, "folder", tmp_path)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    assert "broken.png cannot be read" in said(data, "folder", tmp_path)
    monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 4)  # an image of twice as many is no OSError
    assert "000.JPG cannot be read: Image size" in said(data, "folder", tmp_path)


def test_attributes_of_pictures_are_read_and_judged(data, tmp_path):
    path, files = tmp_path / "attributes.csv", ["a.png", "b.png"]
    assert data.attributes_of(path, files) == ((), None)
    path.write_text("file,smile,hat\nb.png,1,0\nother.png,1,1\na.png,0,0\n")
    names, values = data.attributes_of(path, files)
    assert names == ("smile", "hat") and values.tolist() == [[0, 0], [1, 0]]
    for text, expected in (
        ("file,smile\na.png,1\n", "names no b.png; expected names in the first line, then a line for each picture"),
        ("file,smile\na.png,1\nb.png,yes\n", "has 'yes' for b.png; expected 1 of 0 or 1"),
        ("file,smile\na.png,1\nb.png,1,0\n", "has '1,0' for b.png"),
        ("", "names no a.png"),
        ("file,smile\na.png,1\na.png,0\nb.png,1\n", "names a file twice"),
        ('file,"smile\n' + 70_000 * "a.png\n", "cannot be read: field larger than"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=re.escape(expected)):
            data.attributes_of(path, files)


def test_models_are_of_the_size_of_images():
    images = example("images")
    for name in images.SIZES:
        assert "Dequantize(levels=17" in repr(images.model_of(name, (8, 8, 1), 17))
    with pytest.raises(ValueError, match="multiples of 4"):
        images.model_of("glow", (30, 28, 1), 256)


def run(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["images.py", *map(str, options)])
    example("images").main()


def test_wrong_options_are_told(monkeypatch, capsys, tmp_path):
    for options, expected in (
        (("--minutes", 0), "above 0"),
        (("--data", "fashion-mnist", "--path", tmp_path), "dataset-fashion-mnist"),
        (("--data", "cifar10"), "by --path"),
        (("--data", "digits", "--path", tmp_path), "expected no --path"),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, *options, "--out", tmp_path)
        assert expected in capsys.readouterr().err


def test_damaged_files_of_a_run_are_named(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "images" / "digits-nice"
    folder.mkdir(parents=True)
    for content in ('{"asked": {"minu', "[]", '{"asked": {}}', '{"asked": {}, "epochs": null}'):
        (folder / "plan.json").write_text(content)
        with pytest.raises(SystemExit):
            run(monkeypatch, "--model", "nice", "--out", tmp_path)
        told = capsys.readouterr().err
        assert f"{folder / 'plan.json'} is damaged" in told and "remove its folder" in told
    samples = example("images").Samples(folder, 17, 64, None)
    np.savez_compressed(samples.file, **{"1:2.50": np.zeros((12, 8, 8, 1), np.uint8)})
    assert [each[:2] for each in samples.progress()] == [("1", "2.50")]
    whole = samples.file.read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2], whole.replace(b"1:2.50", b"1:2.51", 1)):
        samples.file.write_bytes(content)
        assert not samples.progress() and str(samples.file) in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")  # optax, by which halves are filled in
@pytest.mark.filterwarnings("ignore:fit")
def test_the_program_goes_on_and_draws(monkeypatch, capsys, tmp_path):
    options = "--layers", 1, "--width", 4, "--minutes", 0.1, "--classes", "--verbose", 0, "--out", tmp_path
    for _ in range(2):
        run(monkeypatch, *options)
        told = capsys.readouterr().out
        assert "360 test images" in told and "largest error of a decoded pixel: 0 levels" in told
        assert "class of a test image by Bayes' rule: right " in told and " nats an image" in told
    folder = tmp_path / "images" / "digits-glow-classes"
    drawn = {path.stem for path in folder.glob("*.png")}
    expected = "progress samples reconstructions nearest inpainting interpolation manifold classes likelihood"
    assert drawn == set(expected.split())
    assert list((folder / "epochs").glob("*.jpg")) and (folder / "model.safetensors").exists()
    with pytest.raises(SystemExit):
        run(monkeypatch, *options, "--minutes", 1)
    assert "'minutes': 0.1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")  # optax, by which halves are filled in
@pytest.mark.filterwarnings("ignore:fit")
def test_as_few_pictures_as_are_taken_are_enough(monkeypatch, capsys, tmp_path, data):
    image = pytest.importorskip("PIL.Image")
    for i in range(data.FEWEST):
        image.fromarray(DRAW.integers(0, 256, (8, 12, 3), np.uint8)).save(tmp_path / f"{i}.png")
    lines = [f"{i}.png,{i % 2},1" for i in range(data.FEWEST)]
    (tmp_path / "attributes.csv").write_text("\n".join(["file,even,picture", *lines]) + "\n")
    options = "--layers", 1, "--width", 4, "--minutes", 0.1, "--verbose", 0, "--out", tmp_path, "--path", tmp_path
    run(monkeypatch, "--data", "folder", *options)
    assert "12 test images" in capsys.readouterr().out
    assert len(list((tmp_path / "images" / "folder-glow").glob("*.png"))) == 9  # one of them moves images by an attribute


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")  # optax, by which halves are filled in
@pytest.mark.filterwarnings("ignore:fit")
@pytest.mark.parametrize(
    ("model", "more"),
    [("made-mog", {"classes"}), ("nice", {"edits", "spectrum", "largest"}), ("flow++", {"edits"})],
)
def test_flows_of_pixels_in_a_row_draw_too(monkeypatch, capsys, tmp_path, model, more):
    classes = ["--classes"] * ("classes" in more)
    run(
        monkeypatch,
        "--model",
        model,
        *classes,
        "--layers",
        2,
        "--width",
        4,
        "--minutes",
        0.1,
        "--verbose",
        0,
        "--out",
        tmp_path,
    )
    assert " bits per dimension, in logit space " in capsys.readouterr().out
    drawn = {path.stem for path in (tmp_path / "images" / f"digits-{model}{'-classes' * len(classes)}").glob("*.png")}
    expected = {"progress", "samples", "reconstructions", "nearest", "interpolation", "manifold", "likelihood", *more}
    assert drawn == expected | ({"inpainting"} if model != "flow++" else set())


def test_nats_in_logit_space_are_the_density_of_the_logits():
    """Of a model whose density of logits is normal, by hand."""
    images, shows = example("images"), example("image_shows")
    init_fun = images.model_of("made-mog", (2, 2, 1), 17)
    first, margin = init_fun.arguments["bijection"].arguments["layers"][: shows.LOGIT], 1e-6
    logit = flows.Serial(*first)(0, (2, 2, 1))
    x = DRAW.integers(0, 17, (5, 2, 2, 1))
    y, slopes = logit.direct_fun(logit.params, x)
    unit = margin + (1 - 2 * margin) * (x + 0.5) / 17
    np.testing.assert_allclose(y, np.log(unit / (1 - unit)), rtol=1e-4)
    np.testing.assert_allclose(slopes, np.log((1 - 2 * margin) / 17 / unit / (1 - unit)).sum((1, 2, 3)), rtol=1e-4)
    colours, grey = (images.model_of("maf", (4, 4, channels), 256) for channels in (3, 1))
    assert "RandomFlip()" in repr(colours) and "RandomFlip()" not in repr(grey)
