"""An error inside a layer says where the layer is: in init, while functions are traced, and in each call."""

import jax.numpy as jnp
import numpy as np
import pytest

import flows

X = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)


def odd(x):
    """Goes wrong at 16 rows, and not at those of a trial run."""
    if x.shape[0] == 16:
        raise ValueError("sixteen")
    return x


@flows.bijection(batched=True)
def Odd(direction="direct"):
    def init_fun(rng, shape, init_inputs=None):
        if init_inputs is not None and direction == "init":
            odd(init_inputs)
        return {"b": jnp.zeros(shape)}, direct_fun, inverse_fun

    def direct_fun(params, x):
        return (odd(x) if direction == "direct" else x) + params["b"][None], jnp.zeros(x.shape[0])

    def inverse_fun(params, y):
        return (odd(y) if direction == "inverse" else y) - params["b"][None]

    return init_fun


@flows.distribution(batched=True)
def OddBase():
    def init_fun(rng, shape):
        return {}, lambda params, x: jnp.zeros(odd(x).shape[0]), lambda rng, params, n: odd(jnp.zeros((n, *shape)))

    return init_fun


def notes_of(call):
    with pytest.raises(ValueError, match="sixteen") as error:
        call()
    return [note for note in error.value.__notes__ if note.startswith("in ")]


def called(init_fun, function, *arguments):
    triple = init_fun(0, 2)
    return notes_of(lambda: getattr(triple, function)(*[triple.params if each is ... else each for each in arguments]))


ME = "test_places.Odd()"


@pytest.mark.parametrize(
    ("init_fun", "function", "arguments", "places"),
    [
        (flows.Serial(flows.ActNorm(), Odd()), "direct_fun", (..., X), [f"layer 1 of Serial, {ME}"]),
        (flows.Serial(Odd("inverse")), "inverse_fun", (..., X), ["layer 0 of Serial, test_places.Odd(direction='inverse')"]),
        (flows.Repeat(Odd(), 2), "direct_fun", (..., X), [f"the layer of Repeat, {ME}"]),
        (flows.Invert(Odd()), "inverse_fun", (..., X), [f"the bijection of Invert, {ME}"]),
        (
            flows.Flow(flows.Serial(flows.Reverse(), flows.Serial(Odd()))),
            "log_pdf",
            (..., X),
            [
                f"layer 0 of Serial, {ME}",
                f"layer 1 of Serial, Serial({ME})",
                f"the bijection of Flow, Serial(Reverse(), Serial({ME}))",
            ],
        ),
        (flows.Flow(flows.ActNorm(), OddBase()), "log_pdf", (..., X), ["the prior of Flow, test_places.OddBase()"]),
        (
            flows.Mixture(flows.Normal(), OddBase()),
            "log_pdf",
            (..., X),
            ["component 1 of Mixture, test_places.OddBase()"],
        ),
        (
            flows.Mixture(OddBase(), num_components=2),
            "log_pdf",
            (..., X),
            ["component 0 of Mixture, test_places.OddBase()"],
        ),
    ],
)
def test_a_call_names_the_layer_and_what_is_around_it(init_fun, function, arguments, places):
    assert called(init_fun, function, *arguments) == [f"in {place}, event (2,)" for place in places]


def test_an_init_names_the_layer():
    inner = flows.Serial(flows.ActNorm(), Odd("init"))
    for init_fun, place in ((inner, None), (flows.Flow(inner), "the bijection of Flow")):
        notes = notes_of(lambda init_fun=init_fun: init_fun(0, 2, init_inputs=X))
        outer = [] if place is None else [f"in {place}, Serial(ActNorm(), test_places.Odd(direction='init')), event (2,)"]
        assert notes == ["in layer 1 of Serial, test_places.Odd(direction='init'), event (2,)", *outer]
    joint = flows.Joint(flows.Normal(), flows.Flow(Odd("init")))
    assert "in base 1 of Joint, Flow(test_places.Odd(direction='init')), event (1,)" in notes_of(
        lambda: joint(0, 2, init_inputs=X)
    )


def test_a_trial_run_names_the_layer_and_says_what_its_author_wrote():
    def layer(direct, context=False):
        @flows.bijection
        def Layer():
            if context:
                return lambda rng, shape, context_dim=0: ({}, direct, lambda params, y, context: y)
            return lambda rng, shape: ({}, direct, lambda params, y: y)

        return Layer()

    for wrong, error, words in (
        (layer(lambda params, x: (x, x)), flows.FlowsError, r"log_det of shape \(3,\) for one event; expected a scalar"),
        (layer(lambda params, x: (jnp.ones((4, 4)) @ x, 0.0)), TypeError, "contracting dimensions"),
    ):
        with pytest.raises(error, match=words) as caught:
            flows.Serial(flows.ActNorm(), wrong)(0, 3)
        assert any("layer 1 of Serial" in note and "Layer(), event (3,)" in note for note in caught.value.__notes__)
    needs = layer(lambda params, x, context: (x + context[0], jnp.zeros(())), context=True)
    report = flows.verify(needs, 3)
    assert not report.passed and "made without a context; if it needs one, give context_dim=" in str(report)

    @flows.distribution
    def Base():
        return lambda rng, shape: ({}, lambda params, x: -x, lambda rng, params: jnp.zeros(shape))

    with pytest.raises(flows.FlowsError, match=r"log_pdf of shape \(3,\) for one event; expected a scalar: log_pdf.sum\(\)"):
        Base()(0, 3)


def test_long_layers_are_cut_short():
    deep = flows.Serial(*[flows.ActNorm()] * 40, Odd())
    notes = called(flows.Flow(deep), "log_pdf", ..., X)
    assert notes[0] == f"in layer 40 of Serial, {ME}, event (2,)" and len(notes[1]) < 160


def test_wrong_params_are_told_by_the_first_place_where_they_differ():
    params, log_pdf, _ = flows.Flow(flows.Serial(flows.ActNorm(), flows.Coupling(flows.MLP(4))))(0, 2)
    layers = params["bijection"]
    for wrong, told in (
        ({"bijection": layers}, "params lacks 'prior'"),
        ({**params, "base": {}}, "params has 'base' in addition"),
        ({"layers": layers, "prior": {}}, "params lacks 'bijection' and has 'layers' in addition"),
        (layers, "params is a tuple of 2, expected a dict with 'bijection', 'prior'"),
        ({**params, "bijection": layers[:1]}, r"params\['bijection'\] is a tuple of 1, expected a tuple of 2"),
        ({**params, "bijection": list(layers)}, r"params\['bijection'\] is a list of 2, expected a tuple of 2"),
        (
            {**params, "bijection": (layers[0], 1.0)},
            r"params\['bijection'\]\[1\] is an array, expected a dict with",
        ),
        ({**params, "bijection": (None, layers[1])}, r"params\['bijection'\]\[0\] is a NoneType, expected a dict with"),
    ):
        with pytest.raises(flows.FlowsError, match=f"Flow: {told}"):
            log_pdf(wrong, X)


def test_a_fourth_function_is_the_inverse_of_a_decorated_bijection_alone():
    def four(rng, input_dim):
        return {}, lambda p, x: (x, jnp.zeros(len(x))), lambda p, y: (y, jnp.zeros(len(y))), lambda p, y: (y, jnp.zeros(len(y)))

    for init_fun in (flows.Serial(four), flows.distribution(lambda: four)()):
        with pytest.raises(TypeError, match=r"expected \(params, function, function\)"):
            init_fun(0, 2)
