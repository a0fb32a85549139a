"""A table that is fitted further: its schema stays, and rows are read by it."""

import numpy as np
from common import error_of
from test_table_fit import SCHEMA, fitted, mixed

from flows import tables


def test_a_table_goes_on_with_its_schema():
    result, rows = fitted(), mixed(seed=3)
    settings = {"weights": "w", "validation": mixed(1_000, seed=9), "max_epochs": 1, "verbose": 0}
    after = tables.fit(0, rows.assign(w=1.0), model=result, **settings)
    ended = float(result.result.history.best)
    np.testing.assert_allclose(after.result.history["start_loss"], ended, rtol=1e-5)
    np.testing.assert_allclose(after.log_prob(rows[:4]), after.log_prob(rows[list(rows)[::-1]][:4]), rtol=1e-6)
    assert all(after.schema[name] == result.schema[name] for name in result.schema) and "w" not in after.draw(0, 2)
    for words, given in (
        ("'purple'", {"frame": rows.assign(colour="purple")}),
        ("weights is 'share', which the result models", {"weights": "share"}),
        ("condition is ('kind',), and the schema of the result", {"condition": "kind"}),
        ("schema is", {"schema": SCHEMA}),
    ):
        assert words in error_of(lambda given=given: tables.fit(0, **{"frame": rows, "model": result, "verbose": 0} | given))
