"""Old names work for a version, with a warning that says the new one."""

import inspect

import jax.numpy as jnp
import pytest

import flows
from flows.core import deprecated
from flows.core.constructors import from_json, to_json


@deprecated.renamed("0.4", height="hidden")
@deprecated.renamed("0.3", width="hidden", depth="layers")
def count(hidden=8, *, layers=1):
    """Multiply."""
    return hidden * layers


@flows.bijection
@deprecated.renamed("0.3", factor="scale")
def Scaled(scale=2.0):
    def direct_fun(params, x):
        return x * scale, x.size * jnp.log(scale)

    def inverse_fun(params, y):
        return y / scale

    return lambda rng, shape: ({}, direct_fun, inverse_fun)


def test_nothing_is_deprecated_today():
    assert deprecated.NAMES == {}


def test_an_argument_has_its_old_name_for_a_version(recwarn):
    assert count(3, layers=2) == 6 and not recwarn.list
    with pytest.warns(FutureWarning, match=r"count\(width=\) is deprecated and goes in version 0\.3; write hidden=") as warned:
        assert count(width=3, layers=2) == 6
    assert warned[0].filename == __file__
    with pytest.warns(FutureWarning), pytest.raises(TypeError, match="unexpected keyword"):
        count(depth=3, wide=2)
    with pytest.warns(FutureWarning, match=r"count\(height=\) is deprecated and goes in version 0\.4"):
        assert count(height=3) == 3
    with pytest.warns(FutureWarning), pytest.raises(TypeError, match="width= is an old name of hidden=, which is there twice"):
        count(height=3, width=4)
    with pytest.raises(TypeError, match=r"count: width= is an old name of hidden=, which is there twice; give hidden= alone"):
        count(width=3, hidden=4)
    assert list(inspect.signature(count).parameters) == ["hidden", "layers"]


def test_an_argument_of_a_constructor_is_remembered_by_its_new_name():
    with pytest.warns(FutureWarning, match=r"Scaled\(factor=\) is deprecated .* write scale="):
        old = Scaled(factor=3.0)
    assert old == Scaled(3.0) and repr(old).endswith("Scaled(scale=3.0)")
    assert to_json(old)["arguments"] == {"scale": 3.0}
    with pytest.warns(FutureWarning, match="write scale="):
        assert from_json({**to_json(old), "arguments": {"factor": 3.0}}, (Scaled,)) == old, "files load for good"


def test_a_name_has_its_old_form_for_a_version(monkeypatch):
    monkeypatch.setitem(deprecated.NAMES, "SplineFlow", ("NSF", "0.3"))
    with pytest.warns(FutureWarning, match=r"flows\.SplineFlow is deprecated and goes in version 0\.3; write flows\.NSF"):
        assert flows.SplineFlow is flows.NSF
    assert from_json({"constructor": "SplineFlow", "arguments": {}}) == flows.NSF()
    with pytest.raises(AttributeError, match="SplineFlows"):
        _ = flows.SplineFlows
