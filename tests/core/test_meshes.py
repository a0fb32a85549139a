"""What a mesh may be; fits on several devices are in tests/training/test_mesh.py."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import flows
from flows.core import Precision, distribution_part, mesh_of_rows
from flows.core.meshes import by_process
from flows.training.devices import Placement
from flows.training.loop.losses import HeldOut, Likelihood, chunks_of
from flows.training.options import Options

ONE = np.array(jax.devices()[:1])


def test_a_mesh_of_one_axis_is_made_automatic():
    explicit = jax.make_mesh((1,), ("data",), devices=ONE)
    mesh = mesh_of_rows(explicit, "fit: mesh")
    assert mesh.axis_names == ("data",) and mesh.axis_types == (jax.sharding.AxisType.Auto,)
    assert mesh_of_rows("all", "fit: mesh").size == len(jax.devices())


@pytest.mark.parametrize(
    ("mesh", "error", "part"),
    [
        (Mesh(ONE.reshape(1, 1), ("a", "b")), flows.FlowsError, "fit: mesh has 2 axes, a=1, b=1; expected one"),
        (Mesh(np.array([]), ("a",)), flows.FlowsError, "fit: mesh has no devices"),
        (Mesh(np.repeat(ONE, 2), ("a",)), flows.FlowsError, "fit: mesh has a device more than once"),
        (2, TypeError, 'fit: mesh is 2; expected None, "all"'),
        ("every", TypeError, "fit: mesh is 'every'"),
    ],
)
def test_what_is_no_mesh_of_rows(mesh, error, part):
    with pytest.raises(error) as caught:
        flows.fit(0, flows.Flow(flows.ActNorm()), np.zeros((9, 2)), mesh=mesh, verbose=0)
    assert part in str(caught.value)


def test_devices_of_a_process_follow_each_other():
    devices = [SimpleNamespace(id=i, process_index=i % 2) for i in range(4)]
    assert [device.id for device in by_process(devices)] == [0, 2, 1, 3]


def test_processes_that_were_started_and_not_joined(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(flows.FlowsError, match=r"SLURM_STEP_NUM_TASKS=4 .* call jax.distributed.initialize\(\) first"):
        mesh_of_rows("all", "fit: mesh")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert mesh_of_rows("all", "fit: mesh").size


def test_a_mesh_of_one_device_changes_nothing():
    rows = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    settings = {"max_epochs": 2, "folds": 1, "verbose": 0}
    model = flows.Flow(flows.ActNorm())
    plain = flows.fit(0, model, rows, **settings)
    for mesh, more in ((Mesh(ONE, ("rows",)), {}), (Mesh(ONE, ("rows",)), {"rows": "split"})):
        spread = flows.fit(0, model, rows, mesh=mesh, **more, **settings)
        np.testing.assert_allclose(spread.history["validation_loss"], plain.history["validation_loss"], atol=1e-5)
    with jax.set_mesh(jax.make_mesh((1,), ("rows",), devices=ONE)):  # of an explicit axis
        within = flows.fit(0, model, rows, mesh=Mesh(ONE, ("rows",)), **settings)
    np.testing.assert_array_equal(within.history["validation_loss"], spread.history["validation_loss"])
    placed = jax.device_put(rows, NamedSharding(Mesh(ONE, ("rows",)), P("rows")))
    np.testing.assert_allclose(plain.log_prob(placed), plain.log_prob(rows), rtol=1e-6)


def test_a_batch_that_does_not_split():
    options = {"batch_size": 50, "accumulate": 4, "verbose": 0, "max_epochs": 1, "folds": 1}
    with pytest.raises(flows.FlowsError, match=r"batch_size is 50, which does not split into accumulate=4 equal parts; .* 48"):
        flows.fit(0, flows.Flow(flows.ActNorm()), np.random.default_rng(0).normal(size=(900, 2)), **options)


def test_a_batch_has_rows_for_each_device(monkeypatch):
    monkeypatch.setattr(Placement, "shares", 300)
    assert Options().rows_a_step(10**6) == Options().rows_a_step(400) == 300
    with pytest.raises(flows.FlowsError, match=r"batch_size is 1, which does not split into 300 equal parts, .* is 300"):
        Options(batch_size=1).rows_a_step(1_000)
    with pytest.raises(flows.FlowsError, match=r"a batch has 300 equal parts, .* there are 200 rows; give fewer devices"):
        Options().rows_a_step(200)


@flows.bijection(batched=True)
def OfValues():
    def init_fun(rng, shape):
        return {}, lambda params, x: (x if float(x[0, 0]) < 9 else 2 * x, x[:, 0] * 0), lambda params, y: y

    return init_fun


@flows.bijection(batched=True)
def Centred():
    """y = x less the mean of the batch in training."""

    def direct_fun(params, x, train=False):
        return (x - x.mean(0) if train else x), jax.numpy.zeros(len(x))

    return lambda rng, shape: ({}, direct_fun, lambda params, y, train=False: y)


@pytest.mark.parametrize(
    ("layer", "divisible"),
    [
        (flows.NSF(1), True),
        (flows.RealNVP(1), True),
        (flows.AffineCoupling(flows.MLP(4, dropout=0.5)), False),
        (flows.Dequantize(), False),
        (Centred(), False),
        (OfValues(), False),
    ],
)
def test_devices_compute_losses_of_their_parts_of_a_batch(layer, divisible):
    """Where noise would be another, or a mean that of the part, all is left to the compiler."""
    part = distribution_part(flows.Flow(layer), (3,), None)
    assert Likelihood(part, 10, Precision(), measures=False).divisible == divisible


def test_rows_that_cannot_be_split():
    rows, model = np.random.default_rng(0).normal(size=(300, 2)), flows.Flow(flows.ActNorm())
    with pytest.raises(TypeError, match="rows is 'split', but there is no mesh"):
        flows.fit(0, model, rows, rows="split", verbose=0)


def test_rows_that_fill_a_chunk_do_not_count():
    index, number = chunks_of(3, 2, False)
    assert index.tolist() == [[0, 1], [2, 0]] and number.tolist() == [[0, 1], [2, 3]]
    told = HeldOut.of(jax.numpy.array([[1.0, 2.0], [4.0, 100.0]]), 3, number)
    np.testing.assert_allclose([told.mean, told.row, told.rest], [7 / 3, 2, 1.5], rtol=1e-6)
    plain = HeldOut.of(jax.numpy.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(told[:7], plain[:7], rtol=1e-6)
    np.testing.assert_array_equal(told.few, [1.0, 2.0, 4.0, np.nan])
