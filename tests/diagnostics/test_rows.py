"""`verify_rows`: each component of a mixture judges rows by its own splines, at the place where these see them."""

import jax
import numpy as np

import flows
from flows.diagnostics import rows as module
from flows.diagnostics.rows import Stage, spline_bound, verify_rows


def splines(bound):
    return flows.Elementwise(flows.transformers.RationalQuadratic(2, bound))


def test_a_component_judges_rows_by_its_own_splines_alone(monkeypatch):
    places = {4.0: [1.0, 5.0], 400.0: [100.0, 300.0], np.inf: [1e9, 1e9]}  # by the bound of a component

    def errors(chain, *_):
        return np.zeros(2), np.zeros(2), np.array(places[spline_bound(chain[0].value)])

    monkeypatch.setattr(module, "_errors", errors)
    components = [flows.Flow(layer) for layer in (splines(4.0), splines(400.0), flows.ActNorm())]
    mixture = flows.Mixture(components[0], flows.Mixture(*components[1:]))
    params = jax.eval_shape(lambda: mixture(0, 1).params)
    report = verify_rows(mixture, params, 1, 0, np.zeros((2, 1)), None, np.zeros(2))
    assert [each.row for each in report.rows] == [1]
    assert report.rows[0].reason == "it lies at 5, outside the range of the splines, +-4, standardised"


def test_the_layers_of_a_serial_before_its_splines_say_where_these_see_a_row():
    serial = flows.Serial(flows.FixedAffine(scale=1e-2), splines(4.0))
    chain = [Stage("bijection", serial, ({}, {"theta": np.zeros((5, 1), np.float32)}), (), (1,), None)]
    trips, log_dets, places = module._errors(chain, np.float32([[300.0], [-500.0]]), None)
    np.testing.assert_allclose(places, [3.0, 5.0], rtol=1e-6)
    assert max(trips) < 1e-3 and max(log_dets) < 1e-3
