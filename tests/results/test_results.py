"""The result of a fit is one value: it keeps what it has when its params are replaced, mapped, compiled, pickled or copied."""

import copy
import pickle

import jax
import numpy as np
import pytest
from common import AFFINE, QUICK, ROWS

import flows
from flows.training import fit, fit_ensemble, fit_to_density

NORMAL = flows.Normal(trainable=True)


def density(x):
    return -0.5 * (x**2).sum(1)


MAKE = {
    "fit": lambda: fit(0, AFFINE, ROWS, **QUICK),
    "ensemble": lambda: fit_ensemble(0, AFFINE, ROWS, members=2, **QUICK),
    "density": lambda: fit_to_density(0, NORMAL, density, 2, max_epochs=2, steps_per_epoch=5, num_weights=500, verbose=0),
}
WAYS = {
    "_replace": lambda result: result._replace(params=result.params),
    "tree": lambda result: jax.tree.map(lambda leaf: leaf, result),
    "jit": jax.jit(lambda result: result),
    "pickle": lambda result: pickle.loads(pickle.dumps(result)),
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("name", MAKE)
def test_a_result_survives(name):
    result = MAKE[name]()
    for way, change in WAYS.items():
        other = change(result)
        assert type(other) is type(result) and repr(other) == repr(result), way
        assert other.log_pdf is result.log_pdf and other.sample is result.sample, "nothing is compiled anew"
        assert other.init_fun == result.init_fun and (other.input_dim, other.context_dim) == (2, 0)
        jax.tree.map(np.testing.assert_array_equal, (other.params, dict(other.history)), (result.params, dict(result.history)))
        if name == "ensemble":
            np.testing.assert_array_equal(other.log_pdfs(other.params, ROWS), result.log_pdfs(result.params, ROWS))
        if name == "density":
            assert other.diagnostics == result.diagnostics


def test_a_result_is_a_pytree_of_its_params():
    result = MAKE["fit"]()
    assert jax.tree.structure(result) == jax.tree.structure(result._replace(params=result.params))
    assert len(jax.tree.leaves(result)) == len(jax.tree.leaves(result.params))
    (path, _), *_ = jax.tree_util.tree_leaves_with_path(result)
    assert jax.tree_util.keystr(path).startswith(".params['bijection']")
    halved = jax.tree.map(lambda leaf: leaf / 2, result)
    np.testing.assert_allclose(halved.params["bijection"]["fixed"]["std"], result.params["bijection"]["fixed"]["std"] / 2)
    gradient = jax.grad(lambda result: result.log_pdf(result.params, ROWS[:5]).sum())(result)
    assert isinstance(gradient, flows.training.FitResult)
    with pytest.raises(TypeError, match="has no parameters; it has params, log_pdf"):
        result._replace(parameters=1)
