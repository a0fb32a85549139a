"""Every transformer x engine x {context, none} x {d = 1, 2, 5}: exact, monotone, triangular. `make test` takes a part."""

import functools

import numpy as np
import pytest
from common import close, facts, stirred
from registry import TRANSFORMERS

import flows
from flows.conditioners import MLP, MaskedMLP, MaskedResidual, Residual

ROWS, CONTEXT = 3, 2
ORDER = {1: (0,), 2: (1, 0), 5: (3, 0, 4, 1, 2)}
MASK = {1: (False,), 2: (False, True), 5: (True, False, False, True, False)}


def engines(transformer, with_context, d):
    """Name -> init_fun and the features in their order of dependence."""
    natural, given = np.arange(d), np.array(ORDER[d])
    masked = MaskedResidual(6, num_blocks=1, last_scale=1.0, order=ORDER[d])
    kept_first = np.concatenate([np.flatnonzero(MASK[d]), np.flatnonzero(~np.array(MASK[d]))])
    return {
        "Elementwise": (flows.Elementwise(transformer, MLP(4, last_scale=1.0) if with_context else None), natural),
        "Coupling": (flows.Coupling(Residual(4, 1, last_scale=1.0), transformer, mask=MASK[d]), kept_first),
        "Coupling, unconditional": (
            flows.Coupling(MLP(4, last_scale=1.0), transformer, unconditional=transformer, squash=4.0), natural
        ),
        "Autoregressive": (flows.Autoregressive(MaskedMLP(6, last_scale=1.0), transformer), natural),
        "Autoregressive, ordered": (flows.Autoregressive(masked, transformer), given),
        "InverseAutoregressive": (flows.InverseAutoregressive(MaskedMLP(6, last_scale=1.0), transformer), natural),
    }  # fmt: skip


ENGINES = list(engines(flows.transformers.Affine(), False, 2))
EVERYTHING = [
    (name, engine, with_context, d)
    for name in TRANSFORMERS
    for engine in ENGINES
    if engine != "Autoregressive, ordered" or TRANSFORMERS[name].transformer.period is None  # which is refused
    for with_context in (False, True)
    for d in (1, 2, 5)
]


def quick(name, engine, with_context, d):
    """A part in which every transformer meets one engine, and every engine every d, with a context and without."""
    i, j, k = list(TRANSFORMERS).index(name), ENGINES.index(engine), 3 * with_context + [1, 2, 5].index(d)
    return (j + k) % 2 == 0 and i % 18 == (12 + 3 * j + k // 2) % 18


def chosen():
    for name, engine, with_context, d in EVERYTHING:
        marks = [] if quick(name, engine, with_context, d) else [pytest.mark.slow]
        label = f"{name}-{engine}-{d}{'-context' * with_context}"
        yield pytest.param(name, engine, with_context, d, id=label, marks=marks)


@pytest.mark.parametrize(("name", "engine", "with_context", "d"), list(chosen()))
def test_exact_monotone_and_triangular(name, engine, with_context, d):
    case = TRANSFORMERS[name]
    init_fun, order = engines(case.transformer, with_context, d)[engine]
    rng = np.random.default_rng(2)
    x = rng.uniform(-1.8, 1.8, size=(ROWS, d))
    given = {"context": rng.normal(size=(ROWS, CONTEXT))} if with_context else {}
    names = ("y", "log_det", "back", "back_log_det", "jacobian")
    of = facts(init_fun, x, functools.partial(stirred, by=0.3), names, **given)
    tolerance = 100 * case.tolerance
    close(of.back, x, tolerance)
    close(of.back_log_det, -of.log_det, tolerance)
    close(of.log_det, np.linalg.slogdet(of.jacobian)[1], tolerance)
    in_order = of.jacobian[:, order][:, :, order]
    assert (np.triu(in_order, 1) == 0).all(), "a feature depends on a later one"
    assert (np.diagonal(in_order, axis1=1, axis2=2) > 0).all(), "not increasing"
    # Guards against vacuous points.
    assert name == "Additive" or np.abs(of.log_det).max() > 1e-3
    assert np.abs(of.y - x).max() > 1e-3
    if d > 1 and engine != "Elementwise":
        assert np.abs(np.tril(in_order, -1)).max() > 1e-4, "nothing depends on anything"


def test_the_quick_part_leaves_nothing_out():
    quick_ones = [each for each in EVERYTHING if quick(*each)]
    assert {name for name, *_ in quick_ones} == {*TRANSFORMERS}
    for first, second in ((1, 2), (1, 3), (2, 3)):  # of engine, context and d
        assert len({(each[first], each[second]) for each in quick_ones}) == len({(e[first], e[second]) for e in EVERYTHING})
