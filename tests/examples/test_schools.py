"""The example of eight schools: the exact posterior, what a guide's draws are worth, and the program in few steps."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

numpyro = pytest.importorskip("numpyro")
dist = pytest.importorskip("numpyro.distributions")
AutoNormal = pytest.importorskip("numpyro.infer.autoguide").AutoNormal
FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("matplotlib")
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("schools")
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def exact(example):
    return example.known(np.random.default_rng(0), 200_000)


def test_the_grid_is_the_posterior(example, exact):
    """log Z and the mean of theta by quadrature over tau alone, with mu in closed form."""

    def of(tau, theta):
        variance = tau**2 + example.ERRORS**2
        precision = 1 / 25 + (1 / variance).sum()
        mean = (example.EFFECTS / variance).sum() / precision
        cov = np.diag(variance) + 25
        density = stats.multivariate_normal.pdf(example.EFFECTS, cov=cov) * stats.halfcauchy.pdf(tau, 0, 5)
        shrunk = (tau**2 * example.EFFECTS[0] + example.ERRORS[0] ** 2 * mean) / variance[0]
        return density * (shrunk if theta else 1)

    z, moment = (integrate.quad(of, 0, 200, args=(theta,), epsabs=0, limit=200)[0] for theta in (False, True))
    log_z, found = exact
    assert log_z == pytest.approx(np.log(z), abs=1e-3)
    assert found.theta.mean() == pytest.approx(moment / z, abs=5 * found.theta.std() / len(found.theta) ** 0.5)


@pytest.mark.usefixtures("relaxed")
def test_weights_of_a_guide_sum_to_the_evidence(example, monkeypatch):
    """Of a posterior that is mean field, and known."""

    def model():
        theta = numpyro.sample("theta", dist.Normal(np.zeros(1, np.float32), 3.0))
        numpyro.sample("tau", dist.LogNormal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=np.float32(2.0))

    monkeypatch.setattr(example, "model", model)
    monkeypatch.setattr(example, "DRAWS", 4_000)
    guide, log_z = AutoNormal(model, init_scale=0.8), stats.norm.logpdf(2, 0, 10**0.5)
    found = example.by_guide(guide, example.trained(guide, 200))
    assert len(found.theta) == len(found.tau) == len(found.log_weights) == 4_000 and found.k < 0.7
    assert example.flows.objectives.log_normalizer(found.log_weights).value == pytest.approx(log_z, abs=0.05)
    told = example.line("mean field", found, log_z, "7").split()
    assert float(told[2]) == pytest.approx(log_z - found.log_weights.mean(), abs=6e-4) and 0 < float(told[2]) < 0.6
    assert told[5] == f"{(found.tau < 1).mean():.1%}"


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
@pytest.mark.filterwarnings("ignore:fit_to_density")
def test_the_program_prints_its_table_and_draws(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(example, "DRAWS", 400)
    monkeypatch.setattr(sys, "argv", ["schools.py", "--quick", "--out", str(tmp_path)])
    example.main()
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("exact: log Z -31.311") and [line[:16].strip() for line in told[3:]] == [
        "mean field", "full covariance", "AutoFlow", "fit_model", "NeuTra", "NUTS",
    ]  # fmt: skip
    assert (tmp_path / "schools.png").stat().st_size > 10_000
