"""Results of `fit` whose columns are named parameters, and draws for many contexts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of

import flows
from flows.results.density import Parameters

ROWS = 200


def data():
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(ROWS, 3)).astype(np.float32)
    return theta, (theta @ rng.normal(size=(3, 4)) + 0.1 * rng.normal(size=(ROWS, 4))).astype(np.float32)


@pytest.fixture(scope="module")
def named():
    theta, x = data()
    result = flows.fit(0, flows.Flow(flows.MAF(1, hidden=(8,))), theta, context=x, max_epochs=2, folds=1, verbose=0)
    return result._replace(named=Parameters.of({"rate": (), "shift": (2,)}, "a test"))


def test_draws_and_rows_are_dicts_by_name(named):
    theta, x = data()
    assert named.parameters == {"rate": (), "shift": (2,)}
    one, many = named.draw(1, 5, context=x[0]), named.draw(1, 5, context=x[:7])
    assert {name: array.shape for name, array in one.items()} == {"rate": (5,), "shift": (5, 2)}
    assert {name: array.shape for name, array in many.items()} == {"rate": (7, 5), "shift": (7, 5, 2)}
    rows = {"rate": theta[:4, 0], "shift": theta[:4, 1:]}
    close(named.log_prob(rows, context=x[:4]), named.log_prob(theta[:4], context=x[:4]), 0)
    assert "'shift': (n, 2)" in error_of(lambda: named.log_prob({"rate": theta[:4, 0]}, context=x[:4]))


def test_they_are_in_the_file(named, tmp_path):
    _, x = data()
    named.save(tmp_path / "a.flows")
    again = flows.load(tmp_path / "a.flows")
    assert type(again) is type(named) and again.parameters == named.parameters
    jax.tree.map(lambda a, b: close(a, b, 0), again.draw(1, 5, context=x[0]), named.draw(1, 5, context=x[0]))
    assert named._replace(named=None).draw(1, 5, context=x[0]).shape == (5, 3)


def test_a_check_and_a_picture_know_the_names(named):
    pytest.importorskip("matplotlib")
    theta, x = data()
    assert "rate" in str(flows.check(named, {"rate": theta[:, 0], "shift": theta[:, 1:]}, context=x))
    figure = named.plot(context=x[0])
    assert figure is not None


def test_a_context_that_is_not_finite_is_refused(named):
    _, x = data()
    wrong = np.array(x[:3])
    wrong[1, 2] = np.nan
    assert "row 1 of the context is nan at [1, 2]; expected finite numbers" in error_of(lambda: named.draw(0, 2, context=wrong))
    assert "the context is inf at [0]" in error_of(lambda: named.draw(0, 2, context=np.full(4, np.inf)))


def test_an_embedding_sees_each_context_once():
    theta, x = data()
    seen = []

    @flows.conditioner
    def Counted():
        def net(rng, input_dim, output_dim):
            def apply_fun(params, inputs):
                seen.append(inputs.shape)
                return inputs @ params

            return 0.1 * jax.random.normal(rng, (input_dim, output_dim)), apply_fun

        return net

    model = flows.EmbeddedContext(flows.Flow(flows.MAF(1, hidden=(4,))), Counted(), 2)
    result = flows.fit(0, model, theta, context=x, max_epochs=1, folds=1, verbose=0)
    seen.clear()
    drawn = result.draw(1, 50, context=x[:6])
    assert drawn.shape == (6, 50, 3) and seen and all(shape[0] == 1 for shape in seen), seen
    means = np.asarray(drawn.mean(1))
    for row in (0, 5):
        close(means[row], np.asarray(result.draw(3, 4000, context=x[row])).mean(0), 0.8)
    assert jnp.isfinite(drawn).all()
