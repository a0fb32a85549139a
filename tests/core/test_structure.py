"""One walk over a model: a combinator and a distribution that the library has never seen go wherever its own do."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import QUICK, ROWS, close

import flows
from flows.core import BijectionInit, Cdf, Composite, DistributionInit, Piece, combinator, distribution_part
from flows.core.revise import replaced, value_at
from flows.core.structure import chain, moves_entries, params_in, structure_of
from flows.diagnostics.rows import verify_rows
from flows.training.model_view import ModelView


@combinator(BijectionInit)
def Twice(first, second):
    """Two bijections one after the other, with params by name."""
    whole = flows.Serial(first, second)

    def part(event, context):
        own = whole.part(event, context)

        def named(params):
            return {"first": params[0], "second": params[1]}

        def run(function):
            return lambda params, *rest: function((params["first"], params["second"]), *rest)

        native = None if own.native_inverse is None else run(own.native_inverse)
        return replace(
            own,
            init=lambda key, given: named(own.init(key, given)),
            direct=run(own.direct),
            inverse=run(own.inverse),
            native_inverse=native,
            path=None,
        )

    pieces = Piece(first, ("first",), "first"), Piece(second, ("second",), "second")
    return Composite(part, (first, second), order="chain", pieces=pieces)


@combinator(DistributionInit)
def Either(*components):
    """A mixture of equal weights."""

    def part(event, context):
        parts = [distribution_part(each, event, context) for each in components]

        def log_pdf(params, x, context, rng, train):
            each = [part.log_pdf(own, x, context, rng, train) for part, own in zip(parts, params, strict=True)]
            return jax.scipy.special.logsumexp(jnp.stack(each), axis=0) - np.log(len(parts))

        def sample(rng, params, n, dtype, context):
            return parts[0].sample(rng, params[0], n, dtype, context)

        def init(key, given):
            return tuple(part.init(own, given) for part, own in zip(parts, jax.random.split(key, len(parts)), strict=True))

        return replace(parts[0], name="Either", init=init, log_pdf=log_pdf, sample=sample, joint_draw=None, path=None, cdf=None)

    return Composite(part, components, order="mixture")


SCALED = flows.Standardize()


def test_a_combinator_of_ones_own_is_walked_through():
    box = Twice(flows.Logit(), Twice(flows.FixedAffine(2.0), flows.ActNorm()))
    assert [step.value for step in chain(box)] == [flows.Logit(), flows.FixedAffine(2.0), flows.ActNorm()]
    assert [step.params_at for step in chain(box)] == [("first",), ("second", "first"), ("second", "second")]
    low, high = flows.support(box, 2).inputs
    assert low.tolist() == [0, 0] and high.tolist() == [1, 1]
    low, high = flows.support(flows.Invert(box), 2).outputs
    assert low.tolist() == [0, 0] and high.tolist() == [1, 1]
    assert flows.support(flows.Repeat(Twice(flows.Rotation(), flows.Rotation()), 2), 2).inputs.period.all()
    assert moves_entries(Twice(flows.Reverse(), flows.Shuffle())) and not moves_entries(Twice(flows.Reverse(), flows.ActNorm()))
    assert flows.verify(box, 2).passed
    assert chain(flows.RealNVP(2)) == chain(flows.RealNVP(2).inner) and len(chain(flows.RealNVP(2))) > 2


def noisy_of(model, columns):
    return ModelView(model, (columns,), None).noisy


def test_standardising_and_noise_see_within_it():
    noisy = flows.Flow(Twice(flows.Dequantize(1.0), flows.ActNorm()))
    view = ModelView(noisy, (2,), None)
    assert view.first == view.leading == (flows.Dequantize(1.0),) and view.rest == flows.Flow(flows.ActNorm())
    assert view.noisy.all() and not noisy_of(flows.Flow(flows.ActNorm()), 2).any()
    beside = flows.Joint(flows.Normal(), noisy, sizes=(1, 2))
    assert noisy_of(beside, 3).tolist() == [False, True, True]
    behind = flows.Flow(flows.ActNorm(), flows.ChainRule(beside, noisy, sizes=(3, 1)))
    assert noisy_of(behind, 4).tolist() == [False, True, True, True]
    assert noisy_of(flows.Flow(flows.Reverse(), beside), 3).all()
    images = np.arange(16.0).reshape(2, 2, 2, 2)
    model = flows.Flow(Twice(flows.Reverse(), flows.Dequantize(1.0, levels=16)), flows.Uniform(-0.5, 15.5))
    for each in (model, Either(model, model)):
        fit = flows.FitResult(*each(0, (2, 2, 2)), each, (2, 2, 2))
        assert flows.bits_per_dim(fit, images).mean == pytest.approx(4.0)


def test_rows_are_verified_in_every_component():
    """The second component's splines end at 1, so rows beyond are told."""
    wide, narrow = (
        flows.Flow(Twice(SCALED, flows.Elementwise(flows.transformers.RationalQuadratic(3, bound=bound))))
        for bound in (9.0, 1.0)
    )
    x = np.array([[0.5, 0.0], [3.0, 0.0]], np.float32)
    for model, told in ((Either(wide, wide), []), (Either(wide, narrow), [1])):
        params, log_pdf, _ = model(0, 2)
        report = verify_rows(model, params, 2, 0, jnp.asarray(x), None, np.asarray(log_pdf(params, x)))
        assert [each.row for each in report.rows] == told, report


def test_members_are_found_behind_it_and_replaced():
    mixture = flows.Mixture(flows.Flow(flows.ActNorm()), num_components=3)
    model = flows.Flow(Twice(SCALED, flows.ActNorm()), flows.StandardizedContext(mixture))
    assert value_at(model, ("prior", "distribution")) == mixture and value_at(model, ("prior", "nowhere")) is None
    assert structure_of(mixture).pieces[0].copies == 3
    single = replaced(model, ("prior", "distribution"), flows.Normal())
    assert single == flows.Flow(Twice(SCALED, flows.ActNorm()), flows.StandardizedContext(flows.Normal()))
    assert replaced(Twice(SCALED, SCALED), ("second",), flows.ActNorm()) == Twice(SCALED, flows.ActNorm())
    params = {"components": {"a": jnp.arange(3.0)}}
    assert params_in(params, ("components", "a"), 2) == 2.0 and params_in(params, ()) is params


def test_a_fit_of_it_is_that_of_the_layers_it_has():
    """Ensembles, standardising, rows and quantiles of a model of one's own, beside the library's."""
    own, known = (flows.Flow(make(flows.ActNorm(), flows.Coupling(flows.MLP(8)))) for make in (Twice, flows.Serial))
    results = [flows.fit_ensemble(0, each, ROWS, members=2, **QUICK) for each in (own, known)]
    close(results[0].log_prob(ROWS[:5]), results[1].log_prob(ROWS[:5]), 1e-6)
    assert results[0].member == flows.Flow(flows.Standardize(), own)
    assert results[0].verify(ROWS[:20]).passed


def triangle(arguments, context):
    """Of the density 2 x / width^2 on (0, width)."""
    width = arguments["width"]

    def tail(params, x, context, upper):
        below = jnp.clip(x / width, 0, 1) ** 2
        return jnp.where(upper, 1 - below, below)

    return Cdf(tail, lambda params, u, context, upper: width * jnp.sqrt(jnp.where(upper, 1 - u, u)), (0.0, width))


@flows.distribution(support=lambda width: flows.Support((0.0, width)), cdf=triangle)
def Triangle(width=1.0):
    def init_fun(rng, shape):
        return {}, log_pdf, lambda rng, params: width * jnp.sqrt(jax.random.uniform(rng, shape))

    def log_pdf(params, x):
        return jnp.log(2 * x / width**2).sum()

    return init_fun


def test_quantiles_of_a_base_of_ones_own_are_exact():
    """By its own distribution function, in flows, mixtures and copies; in several columns there is none."""
    for init_fun, median in (
        (Triangle(2.0), np.sqrt(2.0)),
        (flows.Flow(Twice(flows.FixedAffine(0.5), flows.FixedAffine(2.0)), Triangle(2.0)), np.sqrt(2.0)),
        (flows.Flow(flows.FixedAffine(-0.5), flows.Flow(flows.FixedAffine(-1.0), Triangle())), np.sqrt(2.0)),
        (flows.Mixture(Triangle(2.0), Triangle(2.0)), np.sqrt(2.0)),
        (flows.Mixture(Triangle(2.0), num_components=3), np.sqrt(2.0)),
    ):
        result = flows.FitResult(*init_fun(0, 1), init_fun, 1)
        assert result.cdf_by == "map"
        close(result.quantile(0.5), median, 1e-6)
        close(result.cdf(np.array([[median]])), [0.5], 1e-6)
    assert distribution_part(Triangle(), (2,), None).cdf is None


@pytest.mark.parametrize("value", [lambda *call: None, flows.Coupling(), flows.FactorOut(flows.ActNorm()), flows.Normal()])
def test_who_declares_nothing_is_one(value):
    assert structure_of(value).pieces == () and [step.value for step in chain(value)] == [value]


def test_an_order_that_nobody_knows_is_refused():
    @combinator(BijectionInit)
    def Chained(layer):
        return Composite(layer.part, (layer,), order="chian")

    with pytest.raises(TypeError, match="Chained: order is 'chian'; expected one of opaque, chain"):
        Chained(flows.ActNorm())
