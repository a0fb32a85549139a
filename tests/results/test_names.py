"""Names and calls that trap: an error says what is meant."""

import numpy as np
import pytest
from common import error_of

import flows

RESULT = flows.fit(0, flows.Normal(), np.random.default_rng(0).normal(size=(60, 2)), max_epochs=1, folds=1, verbose=0)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("anomaly", "p_value(rows), which is small where a row is odd"),
        ("fit", "flows.fit(rng, result, rows)"),
        ("predict", "draw(rng, n) for new rows"),
        ("score", "log_prob(rows), in nats"),
    ],
)
def test_a_result_says_what_is_meant(name, meant):
    with pytest.raises(AttributeError) as caught:
        getattr(RESULT, name)
    assert str(caught.value).startswith(f"'FitResult' object has no attribute {name!r}; what is meant may be {meant}")
    assert caught.value.name == name and not hasattr(RESULT, name)
    with pytest.raises(AttributeError, match=r"'FitResult' object has no attribute 'other'$"):
        RESULT.other  # noqa: B018


def test_the_number_of_draws_is_required():
    for call in (lambda: RESULT.draw(1000), lambda: RESULT.draw(rng=1000)):
        with pytest.raises(TypeError, match=r"draw: n is missing; expected draw\(rng, n\), such as draw\(0, 1000\)"):
            call()
    with pytest.raises(TypeError, match=r"sample lacks params; expected sample\(rng, params, n\), or of a result draw"):
        RESULT.sample(1000)
    assert "n is 0" in error_of(lambda: RESULT.draw(0, 0))
