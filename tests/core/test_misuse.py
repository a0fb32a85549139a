"""What users get wrong, and what they are told: nothing is broadcast, dropped, clamped or guessed."""

import pickle
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flows
from flows import transformers as t
from flows.conditioners import MaskedMLP, Residual

X = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
Normal = flows.Normal


def prior(log_pdf=lambda p, x: -(x**2).sum(1), sample=lambda rng, p, n=1: jnp.zeros((n, 2))):
    """A user's own base, as a plain closure."""
    return lambda rng, input_dim: ({}, log_pdf, sample)


def evaluated(init_fun, d=2):
    params, log_pdf, _ = init_fun(0, d)
    return log_pdf(params, np.ones((4, d), np.float32))


def drawn(init_fun):
    params, _, sample = init_fun(0, 2)
    return sample(1, params, 3)


one_number, flat = prior(lambda p, x: -(x**2).sum()), prior(sample=lambda rng, p, n=1: jnp.zeros(n))
SHAPES = [
    (lambda: evaluated(flows.Flow(flows.ActNorm(), one_number)), r"log_pdf .* shape \(\), expected shape \(7,\)"),
    (lambda: evaluated(flows.Joint(one_number, Normal(), sizes=(2, 1)), 3), r"log_pdf .* expected shape \(7,\)"),
    (lambda: evaluated(flows.Mixture(one_number, Normal())), r"log_pdf .* expected shape \(7,\)"),
    (lambda: drawn(flows.Flow(flows.ActNorm(), flat)), r"samples .* expected shape \(7, 2\)"),
    (lambda: drawn(flows.Mixture(prior(sample=lambda rng, p, n=1: jnp.zeros((1, 2))), Normal())), "samples"),
    (lambda: drawn(flows.Flow(flows.ActNorm(), prior(sample=lambda rng, p, n=1: [1.0]))), "samples of .* type list"),
    (lambda: evaluated(flows.Flow(flows.ActNorm(), prior(lambda p, x: x.sum(1).astype(int)))), "dtype int32"),
    (lambda: evaluated(flows.Flow(flows.ActNorm(), prior(lambda p, x: jax.lax.complex(x[:, 0], x[:, 1])))), "dtype complex64"),
    (lambda: flows.FromFunction(lambda p, x: (x, x))(0, 2), "returned a tuple"),
    (lambda: flows.FromFunction(lambda p, x: x.astype(int))(0, 2), "dtype int32"),
    (lambda: flows.FromFunction(lambda p, x: x.sum())(0, 1), r"shape \(\)"),
    (lambda: flows.verify(flows.ActNorm(), 2, inputs=X[:0]), "no rows"),
    (lambda: flows.verify(flows.ActNorm(), 3, inputs=X), r"expected \(batch, 3\)"),
]  # fmt: skip


def of(init_fun, d=2, **keywords):
    return init_fun(0, d, **keywords).params


def complex_params():
    flow = flows.Flow(flows.ActNorm())(0, 2)
    return flow.log_pdf(jax.tree.map(lambda leaf: leaf.astype(complex), flow.params), X)


PARAMS = [
    (lambda: flows.ActNorm()(0, 2, params=of(flows.ActNorm(), 1)), r"shape \(1,\), expected \(2,\)"),
    (lambda: flows.remeasure(flows.ActNorm(), of(flows.ActNorm(), 1), X), r"shape \(1,\), expected \(2,\)"),
    (lambda: flows.remeasure(flows.BatchNorm(), of(flows.BatchNorm(), 1), X), r"shape \(1,\), expected \(2,\)"),
    (lambda: flows.Repeat(flows.ActNorm(), 3)(0, 2, params=of(flows.Repeat(flows.ActNorm(), 2))), "leading axis of 3"),
    (lambda: flows.Repeat(flows.ActNorm(), 2)(0, 2, params=of(flows.Repeat(flows.ActNorm(), 3))), "leading axis of 2"),
    (lambda: Normal(True, "full")(0, 2, params=of(Normal(True))), "params lacks"),
    (lambda: flows.Coupling(flows.MLP(4))(0, 5, params="junk"), "params is a str, expected a dict"),
    (lambda: flows.Mixture(Normal(True), num_components=3)(0, 2, params=of(flows.Mixture(Normal(True), num_components=2))),
     "leading axis of 3"),
    (lambda: flows.Mixture(Normal(), Normal())(0, 2, params=of(flows.Mixture(Normal(), Normal(), Normal()))), "3 components"),
    (lambda: flows.Mixture(Normal(), Normal())(0, 2, params=of(flows.Mixture(Normal(), Normal(), trainable=False))),
     '"logits": ...'),
    (lambda: flows.Flow(lambda rng, d: ({"a": jnp.ones(d)}, None, None))(0, 2), "expected"),
    (complex_params, "complex64; expected real"),
]  # fmt: skip
ARGUMENTS = [
    (lambda: Normal("full"), "trainable is 'full'; expected True or False"),
    (lambda: Normal(0.0, 1.0), r"^Normal: trainable is 0.0; expected True or False. Its params hold loc and scale: params"),
    (lambda: Normal(np.zeros(3)), "hold loc and scale"),
    (lambda: flows.Laplace(0, 1), r"hold loc and scale: .*flows\.Laplace\(trainable=True\)"),
    (lambda: flows.StudentT(3.0, 0.0, 1.0), "hold loc and scale"),
    (lambda: flows.Sigmoid("no"), "clip_before_logit is 'no'; expected True or False"),
    (lambda: flows.Coupling(flip=1), "flip is 1; expected True or False"),
    (lambda: Residual(4, batch_norm="no"), "batch_norm is 'no'"),
    (lambda: flows.bijection(batched="yes"), "batched is 'yes'"),
    (lambda: flows.remeasure(flows.BatchNorm(), of(flows.BatchNorm()), X, moving="yes"), "moving is 'yes'"),
    (lambda: flows.GMM([[np.nan]], [[[1.0]]], [1]), "means .* expected finite numbers"),
    (lambda: flows.GMM([[0.0]], [[[np.inf]]], [1]), "covariances .* expected finite numbers"),
    (lambda: flows.GMM([[1e300]], [[[1.0]]], [1]), "size up to"),
    (lambda: flows.GMM([[0.0, 0.0]], [[[1e-9, 5e-10], [-5e-10, 1e-9]]], [1]), "not symmetric"),
    (lambda: flows.GMM([[1], [2, 3]], [[[1]]], [1]), "rows of equal length"),
    (lambda: flows.StudentT(1e300), "from 1e-06 to 1e\\+30"),
    (lambda: flows.LogisticCDF(0.0, 1e-300), "from 1e-37"),
    (lambda: flows.NormalCDF(10**400), "loc .* expected a finite number"),
    (lambda: flows.LeakyReLU(1e-50), "slope .* above 0"),
    (lambda: flows.Uniform("a", "b"), "low is 'a'; expected finite numbers"),
    (lambda: flows.Uniform(0, "1"), "high is '1'"),
    (lambda: flows.Uniform(0, 1j), "high is 1j"),
    (lambda: flows.Uniform((0, 1), 2)(0, 3), r"a number, or the shape \(3,\)(?! or)"),
    (lambda: flows.FixedAffine([[1], [2, 3]]), "rows of equal length"),
    (lambda: flows.FixedAffine(0.0), "above 1e-37"),
    (lambda: flows.Mixture(Normal(), Normal(), weights="ab"), "weights is 'ab'"),
    (lambda: flows.MLP(3, last_scale=float("nan")), "last_scale is nan"),
    (lambda: Residual(3, last_scale="a"), "last_scale is 'a'"),
    (lambda: flows.MLP(3, dtype="foo"), "dtype is 'foo'"),
    (lambda: flows.MLP(3)(0, -1, 2), "input_dim is -1"),
    (lambda: MaskedMLP(4, order=3)(0, 3, 3), "order is 3"),
    (lambda: MaskedMLP(4, order=("a", 1, 2))(0, 3, 3), "each once"),
    (lambda: flows.Elementwise(t.Affine(), MaskedMLP(8))(0, 2, context_dim=1), "use MLP or Residual"),
    (lambda: flows.Coupling(MaskedMLP(8))(0, 1, context_dim=2), "use MLP or Residual"),
    (lambda: flows.Autoregressive(flows.MLP(8))(0, 3), "expected a masked network"),
    (lambda: flows.Autoregressive(Residual(8))(0, 3), "expected a masked network"),
    (lambda: flows.Coupling(flows.MLP(8), mask="random", unconditional=(t.Affine(), t.Additive()))(0, 4), "one for all"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "told"), [*SHAPES, *PARAMS, *ARGUMENTS], ids=lambda x: x if isinstance(x, str) else "")
def test_errors_name_what_was_got_and_what_was_expected(call, told):
    with pytest.raises((flows.FlowsError, TypeError), match=told):
        call()


@pytest.mark.parametrize(("call", "told"), [
    (lambda: flows.AffineCouplingSplit(3, flows.MLP(4)), "the conditioner is 3"),
    (lambda: flows.Coupling(flows.MLP(3), "affine"), "the transformer is 'affine'"),
    (lambda: flows.Coupling(lambda rng, i, o: None)(0, 2), r"returned None; expected \(params, apply_fun\)"),
    (lambda: flows.Coupling(lambda rng, i, o: ({}, 3))(0, 2), "returned"),
    (lambda: flows.remeasure("x", {}, X), "expected a bijection or a distribution"),
    (lambda: flows.support(flows.MLP(2), 2), "expected a bijection or a distribution"),
    (lambda: flows.support(flows.Exp, 2), r"call it: Exp\(\.\.\.\)"),
    (lambda: Normal()(0, 2).sample(0, {}, 3, foo=1), "the keywords are context$"),
])  # fmt: skip
def test_wrong_kinds_are_type_errors(call, told):
    with pytest.raises(TypeError, match=told):
        call()


def test_equal_models_share_their_functions_however_they_were_made():
    first, again = (flows.Joint(Normal(), flows.Laplace())(0, 2) for _ in range(2))
    assert first.log_pdf is again.log_pdf


def test_a_namespace_that_changed_is_seen_by_a_new_layer():
    settings = types.SimpleNamespace(scale=2.0)
    scaled = [flows.FromFunction(lambda params, x: x * settings.scale)(0, 1).direct_fun({}, np.ones((1, 1), np.float32))[0]]
    settings.scale = 3.0
    scaled.append(flows.FromFunction(lambda params, x: x * settings.scale)(0, 1).direct_fun({}, np.ones((1, 1), np.float32))[0])
    assert [float(each[0, 0]) for each in scaled] == [2.0, 3.0]


def test_a_conditional_base_measures_a_context_given_alone():
    context = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    base = Normal(conditioner=Residual(4, batch_norm=True))
    fixed = base(0, 2, context_dim=3, init_context=context).params["fixed"]
    assert bool((fixed["mean"] != 0).any()) and bool((fixed["var"] != 1).any())


def test_values_go_to_other_processes():
    value = flows.Flow(flows.NSF(2, hidden=(8,)), flows.StudentT(3.0))
    assert pickle.loads(pickle.dumps(value)) == value


def test_a_constructor_without_a_module_has_a_name():
    made = {}
    source = "import flows\n@flows.bijection\ndef S():\n    return lambda r, s: ({}, lambda p, x: (x, 0.0), lambda p, y: y)"
    exec(source, made)
    assert repr(made["S"]()).endswith("S()")


def result_of(columns=2):
    rows = np.random.default_rng(0).normal(size=(60, columns)).astype(np.float32)
    return flows.fit(0, flows.Normal(trainable=True), rows, max_epochs=1, folds=1, verbose=0)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: flows.fit(flows.Normal(), np.zeros((9, 2))), TypeError, "expected a call such as flows.fit(0, flow, data)"),
        (lambda: flows.fit(0, flows.Normal(), np.zeros((9, 2)), epochs=5), TypeError, "no epochs=; did you mean max_epochs=?"),
        (
            lambda: flows.fit(0, flows.Normal(), np.zeros((9, 2)), lr=5),
            TypeError,
            "did you mean learning_rate=? Its keywords are",
        ),
        (lambda: flows.select(0, None, np.zeros((9, 2)), patients=5), TypeError, "did you mean patience=?"),
        (lambda: flows.fit(0, flows.Normal(), np.zeros((9, 2)), zzz=5), TypeError, "takes no zzz=. Its keywords are"),
        (lambda: flows.fit(0, flows.Normal(), np.ones((9, 2)), checkpoint=3.0), flows.FlowsError, "checkpoint is 3.0"),
        (lambda: flows.Serial([flows.NSF(), flows.Reverse()]), TypeError, "is a list of 2; .* Serial(*layers)"),
        (lambda: flows.NSF().log_prob, AttributeError, "'log_prob': it is an init_fun, params, direct_fun"),
        (lambda: flows.Flow(flows.NSF()).sample, AttributeError, "'sample': it is an init_fun, params, log_pdf, sample"),
        (lambda: flows.bijection(3), TypeError, "flows.bijection: it was given 3"),
        (lambda: flows.distribution(3), TypeError, "flows.distribution: it was given 3"),
        (lambda: flows.FromFunction(int)(0, 2), TypeError, "FromFunction: .* whose arguments are not known"),
        (lambda: flows.GMM(num_components=2, trainable="no"), flows.FlowsError, "GMM: trainable is 'no'"),
        (lambda: flows.Unconstrain(high=True), flows.FlowsError, "expected numbers, not True or False"),
        (lambda: flows.transformers.transformer(period="exact"), flows.FlowsError, "period is 'exact'"),
        (
            lambda: flows.NeuralSplineCoupling(network=Normal()),
            TypeError,
            "network is Normal(); expected a function network(",
        ),
        (lambda: flows.MADE(lambda rng: None), TypeError, "MADE: the network .* cannot be called as transform(rng, input_dim)"),
        (lambda: flows.Coupling(lambda rng: None), TypeError, "cannot be called as net(rng, input_dim, output_dim)"),
        (
            lambda: flows.conditioners.FromStax(Normal()),
            TypeError,
            "make is Normal(); expected a function that makes",
        ),
        (lambda: flows.conditioners.FromStax(lambda: None), TypeError, "make is .* cannot be called as make(output_dim)"),
        (
            lambda: flows.FromFunction(object),
            TypeError,
            "FromFunction: fun is <class 'object'>; expected a function fun(params, x)",
        ),
        (lambda: flows.conditioners.FromStax(len)(0, 2, 3), TypeError, r"FromStax: make(3) raises TypeError: .* has no len()"),
        (lambda: flows.FromFunction(Normal()), TypeError, "FromFunction: fun is Normal(); expected a function fun(params, x)"),
        (lambda: flows.conditioner(3.0), TypeError, "flows.conditioner: it was given 3.0"),
        (lambda: t.transformer("full"), TypeError, "transformer: it was given 'full'"),
        (lambda: flows.bijection(int), TypeError, "whose arguments are not known"),
        (lambda: flows.Serial(lambda x: x)(0, 2), TypeError, "cannot be called as init_fun(rng, input_dim)"),
        (lambda: flows.Serial(np.sin)(0, 2), TypeError, "<ufunc 'sin'>, which cannot be called as init_fun(rng, input_dim)"),
        (lambda: flows.remeasure(int, {}, X), TypeError, "remeasure: init_fun .* cannot be called as init_fun(rng, input_dim)"),
        (lambda: flows.NSF(spline={1}), flows.FlowsError, "NSF: spline is {1}"),
        (lambda: flows.MaskedDense([[1], [1, 0]]), flows.FlowsError, "expected rows of equal length"),
        (
            lambda: flows.objectives.reverse_kl({}, Normal()(0, 2), Normal(), 0, 5),
            TypeError,
            "reverse_kl: log_density is Normal(); expected a function of points",
        ),
        (lambda: flows.RealNVPImage(num_layers={}), flows.FlowsError, "RealNVPImage: num_layers is {}"),
        (lambda: flows.objectives.pareto_k([[1.0], [1.0, 2.0]]), TypeError, "log_weights cannot be read as one array"),
        (lambda: result_of().save("nowhere", metadata=np.zeros(3)), flows.FlowsError, "metadata is a ndarray"),
        (lambda: result_of().save("nowhere", allow_nan=""), flows.FlowsError, "allow_nan is ''"),
        (lambda: result_of(1).quantile([]), flows.FlowsError, "q is empty"),
        (lambda: (r := result_of()).sample(r.params, 0, 5), TypeError, "rng is the first argument, before params"),
        (lambda: (r := result_of()).log_pdf(np.zeros((3, 2)), r.params), TypeError, "params come before the rows"),
    ],
)
def test_calls_in_other_ways_are_told_with_what_to_do(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    first, _, second = words.partition(".*")
    assert first in str(caught.value) and second in str(caught.value) and len(str(caught.value)) < 900


def test_an_argument_of_another_library_is_no_plain_value():
    table = types.SimpleNamespace(to_numpy=lambda: None)
    with pytest.raises(flows.FlowsError, match=r"MAF: argument 'activation' is .* of another library; .* its .to_numpy"):
        flows.MAF(activation=table)
