"""The examples of a photograph, of one column and of a ring of wells: small, and of files that are none."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples"


def run(monkeypatch, *options, name="picture"):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, options)])
    importlib.import_module(name).main()


def test_files_that_are_no_pictures_are_told(monkeypatch, capsys, tmp_path):
    (tmp_path / "no.png").write_text("nothing")
    for name in ("no.png", "nowhere.png"):
        with pytest.raises(SystemExit, match=r"cannot be read.*Give a PNG or JPEG file"):
            run(monkeypatch, "--picture", tmp_path / name, "--out", tmp_path)
    sys.modules["picture"].plt.imsave(tmp_path / "black.png", np.zeros((4, 5)), cmap="gray", vmin=0, vmax=1)
    with pytest.raises(SystemExit):
        run(monkeypatch, "--picture", tmp_path / "black.png", "--out", tmp_path)
    assert "no pixel has mass" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_program_draws(monkeypatch, capsys, tmp_path):
    run(monkeypatch, "--quick", "--out", tmp_path)
    told = capsys.readouterr().out
    assert "2,000 draws of 427 x 640 pixels" in told and told.count("nats behind the truth") == 2
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_one_column_has_four_densities(monkeypatch, capsys, tmp_path):
    run(monkeypatch, "--quick", "--out", tmp_path, name="one_column")
    told = capsys.readouterr().out
    assert told.count("nats a row") == 4 and "of the flow " in told
    assert (tmp_path / "one_column.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_ring_of_wells_draws(monkeypatch, capsys, tmp_path):
    run(monkeypatch, "--minutes", "0.02", "--out", tmp_path, name="wells")
    assert capsys.readouterr().out.count("effective sample size") == 4
    assert (tmp_path / "wells.png").stat().st_size > 10_000
