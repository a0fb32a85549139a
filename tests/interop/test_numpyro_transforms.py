"""Every bijection as a transform of NumPyro's: theirs equal ours, there and back, and log-dets are those of the Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from common import points, scale_closure, stirred
from registry import BIJECTIONS

import flows
from flows.diagnostics import enable_x64
from flows.interop.numpyro import transform

REPRESENTATIVES = ("Coupling-2", "Unconstrain-4", "InvertibleLinear-2", "Squeeze-(2, 4, 3)", "Cylinder-4")
LEAD = (2, 3)


def cases(quick):
    for name, case in BIJECTIONS.items():
        if case.needs_context or case.init_fun.likelihood == "lower bound":
            continue
        for event in case.events:
            label = f"{name}-{event}"
            yield pytest.param(name, event, id=label, marks=[pytest.mark.slow] * (label not in quick))


def compare(name, event, tolerance):
    case, dtype = BIJECTIONS[name], jnp.result_type(float)
    shape = event if isinstance(event, tuple) else (event,)
    params, direct_fun, _ = case.init_fun(3, event)
    params = stirred(params, by=case.stir)
    theirs = transform(case.init_fun, params, event)
    rows = jnp.asarray(points(case, event, 6), dtype)
    x = rows.reshape(*LEAD, *shape)
    support = flows.support(case.init_fun, event)
    flat = np.prod(shape) <= 12 and not (support.inputs.sphere.any() or support.outputs.sphere.any())
    flat = flat and "eversible" not in name  # which have a gradient of their own, and only backwards

    @jax.jit
    def program(theirs, x):
        y, intermediates = theirs.call_with_intermediates(x)
        mapped = jax.vmap(theirs)(x)
        log_det = theirs.log_abs_det_jacobian(x, y, intermediates)
        backwards = theirs.inv.log_abs_det_jacobian(y, x)
        found = {"y": y, "vmap": mapped, "log_det": log_det, "back": theirs.inv(y), "inverse": -backwards}
        if flat:

            def one(x):
                return jnp.ravel(theirs(x.reshape(shape)))

            found["jacobian"] = jax.vmap(lambda x: jnp.linalg.slogdet(jax.jacfwd(one)(x))[1])(x.reshape(6, -1)).reshape(LEAD)
        return found

    found = program(theirs, x)
    y, log_det = direct_fun(params, rows)
    assert theirs.forward_shape(x.shape) == found["y"].shape and theirs.inverse_shape(found["y"].shape) == x.shape
    loose = 1e4 if case.loose else 1e3  # of what goes through an inverse
    of = {"y": (y, 1), "vmap": (y, 10), "log_det": (log_det, 1), "jacobian": (log_det, loose)}
    of |= {"back": (rows, loose), "inverse": (log_det, loose)}
    if dtype == jnp.float32:  # which takes stirred params neither back nor to a determinant
        found = {how: found[how] for how in ("y", "vmap", "log_det")}
    for how, got in found.items():
        ours, times = of[how]
        ours = np.asarray(ours).reshape(got.shape)
        np.testing.assert_allclose(got, ours, rtol=times * tolerance, atol=times * tolerance, err_msg=how)
    assert theirs.domain.event_dim == len(shape) and theirs.codomain.event_dim == y.ndim - 1


@pytest.mark.parametrize(("name", "event"), list(cases(REPRESENTATIVES)))
def test_theirs_equal_ours(name, event):
    with enable_x64():
        compare(name, event, 1e-12)


@pytest.mark.parametrize(("name", "event"), list(cases(REPRESENTATIVES[1:2])))
def test_in_float32(name, event):
    compare(name, event, 1e-6)


def test_a_guide_of_noise_never_inverts(relaxed):
    """Draws with their density take one pass of the function that is called, forwards, and densities of data one of ours."""
    bijection = flows.IAF(1, hidden=(8,))
    params = stirred(bijection(0, 3).params, by=0.3)
    site = dist.TransformedDistribution(
        dist.Normal(jnp.zeros(3), 1.0).to_event(1), transform(flows.Invert(bijection), params, 3)
    )
    x, intermediates = site.sample_with_intermediates(jax.random.key(0), (4,))
    of_draws = str(jax.make_jaxpr(lambda x: site.log_prob(x, intermediates))(x))
    assert "dot_general" not in of_draws and "while" not in of_draws
    ours = flows.Flow(bijection)(0, 3).log_pdf({"bijection": params, "prior": {}}, x)
    np.testing.assert_allclose(site.log_prob(x, intermediates), ours, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(site.log_prob(x), ours, rtol=1e-5, atol=1e-5)


def test_equal_transforms_are_traced_once():
    bijection, traces = flows.ActNorm(), []

    @jax.jit
    def run(theirs, x):
        traces.append(1)
        return theirs(x)

    several = [transform(bijection, stirred(bijection(0, 2).params, by=by), 2) for by in (0.1, 0.2)]
    outputs = [run(each, jnp.ones((3, 2))) for each in several]
    assert len(traces) == 1 and not np.allclose(*outputs)
    assert (
        several[0] == several[0]
        and several[0] != several[1]
        and bool(several[0].eq(transform(bijection, several[0].params, 2)))
    )
    assert not several[0].eq(several[1]) and hash(several[0]) == hash(several[1])


def test_bad_input_names_the_remedy():
    params = flows.ActNorm()(0, 2).params
    for call, kind, words in (
        (lambda: transform(flows.Flow(flows.ActNorm()), params, 2), TypeError, "the distribution Flow.*expected a bijection"),
        (lambda: transform(scale_closure, params, 2), TypeError, "plain closure"),
        (lambda: transform(flows.Serial(scale_closure), params, 2), flows.FlowsError, "plain closure in it"),
        (lambda: transform(flows.ActNorm, params, 2), TypeError, "call it"),
        (lambda: transform(flows.Dequantize(), {}, 2), flows.FlowsError, "lower bound"),
        (lambda: transform(flows.ActNorm(), params, 3), flows.FlowsError, "params"),
        (lambda: transform(flows.ActNorm(), params, 2)(np.ones((4, 3))), flows.FlowsError, r"x has shape \(4, 3\)"),
        (lambda: transform(flows.ActNorm(), params, 2).forward_shape((3,)), flows.FlowsError, r"\(\.\.\., 2\)"),
    ):
        with pytest.raises(kind, match=words):
            call()
