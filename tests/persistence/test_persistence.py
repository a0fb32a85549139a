"""Models in files: what is read back is what was written, and anything else is an error that names the file."""

import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from drawing import DRAWING
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from registry import BIJECTIONS, CODES, DIRECTIONAL, DISTRIBUTIONS
from saved_models import MODELS, OWN, Mixed, Rotation, Stretch, drawn, same, small, tiny

import flows
from flows import describe, load, save
from flows.core.inputs import as_context, as_event
from flows.core.publish import functions_of
from flows.diagnostics import enable_x64
from flows.persistence.container import START
from flows.persistence.models import _abstract

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# What is read back is what was written


@pytest.mark.parametrize("name", [*BIJECTIONS, *DRAWING, *DISTRIBUTIONS, *DIRECTIONAL, *CODES])
def test_every_registered_model_reads_back(name, path):
    case = {**BIJECTIONS, **DRAWING, **DISTRIBUTIONS, **DIRECTIONAL, **CODES}[name]
    event = case.events[-1]
    if "FromFunction" in repr(case.init_fun):
        with pytest.raises(flows.FlowsError, match=r"FromFunction\.fun is the function '(shifted_)?wave'"):
            save(path, case.init_fun, {}, event, 2 if "context" in name else 0)
        return
    for context_dim in (2,) if getattr(case, "needs_context", False) else (0, 2) if case.conditional else (0,):
        params = drawn(case.init_fun, event, context_dim)
        save(path, case.init_fun, params, event, context_dim)
        triple = load(path, constructors=OWN)
        same(triple.params, params)
        kind = flows.Bijection if name in {**BIJECTIONS, **DRAWING} else flows.Distribution
        assert isinstance(triple, kind)
        original = functions_of(*_abstract(case.init_fun, as_event(event), as_context(context_dim)))
        assert triple[1] is original[0] and triple[2] is original[1]
        assert describe(path)["code"] == repr(case.init_fun) or "SmallConv" in repr(case.init_fun)


@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_the_same_to_the_bit(name, path):
    init_fun, event, context_dim = MODELS[name]
    keywords = {"context_dim": context_dim} if context_dim else {}
    given = {"context": np.ones(context_dim, np.float32)} if context_dim else {}
    original = init_fun(0, event, **keywords)
    params = drawn(init_fun, event, context_dim)
    save(path, init_fun, params, event, context_dim)
    with jax.log_compiles(False):
        loaded = load(path, constructors=OWN)
    shared = loaded[1] is original[1], loaded[2] is original[2]
    assert shared == ((False, False) if name == "user's" else (True, True)), "each init in NumPy makes functions of its own"
    x = np.random.default_rng(1).normal(size=(5, *(event if isinstance(event, tuple) else (event,)))).astype(np.float32)
    expected, got = original[1](params, x, **given), loaded[1](loaded.params, x, **given)
    same(expected, got)
    assert all(np.isfinite(each).all() for each in jax.tree.leaves(got))
    if isinstance(loaded, flows.Distribution):
        same(original.sample(7, params, 3, **given), loaded.sample(7, loaded.params, 3, **given))


def test_what_init_drew_is_read_back(path):
    for name in ("Flow of NSF", "user's"):
        init_fun, event, _ = MODELS[name]
        params = init_fun(5, event).params
        save(path, init_fun, params, event)
        same(load(path, OWN).params, params)


def test_loading_compiles_nothing(path, caplog):
    init_fun, event, _ = MODELS["Flow of NSF"]
    params, log_pdf, _ = init_fun(0, event)
    log_pdf(params, np.ones((2, event), np.float32))
    save(path, init_fun, params, event)
    with jax.log_compiles():
        jax.jit(lambda x: x + 1.5)(np.float32(1))
        assert any("Compiling" in each.message for each in caplog.records), "the test cannot see compilations"
        caplog.clear()
        loaded = load(path)
        loaded.log_pdf(loaded.params, np.ones((2, event), np.float32))
    assert not [each.message for each in caplog.records if "ompil" in each.message]


def test_a_new_process_has_the_same_numbers(path):
    init_fun, event, _ = MODELS["Flow of NSF"]
    params, log_pdf, _ = init_fun(3, event)
    x = np.linspace(-1, 1, 4 * event, dtype=np.float32).reshape(4, event)
    save(path, init_fun, params, event, metadata={"column": "höhe"})
    script = """
        import sys
        import conftest  # the same settings of JAX
        import numpy as np
        from flows import load
        params, log_pdf, sample = load(sys.argv[1])
        x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
        print(np.asarray(log_pdf(params, x)).tobytes().hex())
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": TESTS})
    assert run.stdout.strip() == np.asarray(log_pdf(params, x)).tobytes().hex()


def test_dtypes_shapes_and_special_values_are_kept(path):
    params = drawn(Mixed(), 4)
    params["scale"] = jnp.asarray(jnp.nan)
    params["half"] = params["half"].at[:3].set(jnp.asarray([jnp.inf, -0.0, 6e-8], jnp.float16))
    save(path, Mixed(), params, 4, allow_nan=True)
    same(load(path, [Mixed]).params, params)
    of = {name: (each["dtype"], each["shape"]) for name, each in describe(path)["tensors"].items()}
    assert of == {
        "brain/0": ("bfloat16", (2, 3)), "brain/1": ("float32", (0, 2)), "half": ("float16", (4,)), "scale": ("float32", ()),
    }  # fmt: skip


def test_numpy_arrays_in_any_layout_are_saved(path):
    q = np.arange(9, dtype=">f4").reshape(3, 3).T
    save(path, Rotation(), {"fixed": {"q": q}}, 3)
    np.testing.assert_array_equal(load(path, [Rotation]).params["fixed"]["q"], q.astype("<f4"))


def test_a_lone_leaf_has_a_name(path):
    @flows.bijection
    def Shift():
        return lambda rng, shape: (jnp.zeros(shape), lambda params, x: (x + params, 0 * x.sum()), lambda params, y: y - params)

    save(path, Shift(), jnp.ones(2), 2)
    same(load(path, [Shift]).params, jnp.ones(2))
    assert list(describe(path)["tensors"]) == ["params"]


def test_float64_params_stay_or_say_that_they_do_not(path):
    with enable_x64():
        params = drawn(tiny, 2)
        assert params["shift"].dtype == jnp.float64
        save(path, tiny, params, 2)
        same(load(path).params, params)
    assert describe(path)["tensors"]["shift"]["dtype"] == "float64"
    with pytest.warns(UserWarning, match=r"model\.safetensors.* float32 .*jax_enable_x64"):
        loaded = load(path)
    same(loaded.params, jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float32), params))


def test_float32_params_stay_where_x64_is_enabled(saved):
    with enable_x64():
        assert load(saved).params["shift"].dtype == jnp.float32


def test_equal_models_make_equal_files(tmp_path):
    init_fun, event, _ = MODELS["user's"]
    params, twin = drawn(init_fun, event), flows.Flow(flows.Serial(Stretch(options={"a": [1, np.inf]}, by=3.0), Rotation()))
    save(tmp_path / "a", init_fun, params, event, metadata={"x": 1, "y": [2]})
    save(str(tmp_path / "b"), twin, jax.tree.map(np.asarray, params), (event,), None, {"y": [2], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_constructors_with_every_kind_of_argument(path):
    @flows.bijection
    def Kinds(a, /, b, *layers, c=None, **rest):
        return flows.Serial(*layers)

    init_fun = Kinds(1, -0.0, flows.ActNorm(), flows.Reverse(), c=(True, "x", ()), d={"e": None})
    save(path, init_fun, drawn(init_fun, 2), 2)
    assert load(path, {Kinds}).direct_fun is init_fun(0, 2).direct_fun


# The header

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
shallow = st.lists(plain, max_size=3) | st.dictionaries(st.text(), plain, max_size=3)
json_values = plain | shallow | st.lists(shallow, max_size=2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metadata=st.dictionaries(st.text(), json_values, max_size=4))
def test_metadata_reads_back(metadata, path):
    metadata = {**metadata, "file_sha256": "0" * 64, "zeros": START.decode() + "0" * 64}  # do not confuse the digest's place
    save(path, tiny, {"log_scale": np.ones(1, np.float32), "shift": np.zeros(1, np.float32)}, 1, metadata=metadata)
    assert describe(path)["metadata"] == metadata
    load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([1], "metadata is a list, expected a dict"),
        ({"a": 1, "loss": np.float32(1)}, r"metadata\['loss'\].*float32"),
        ({"loss": float("nan")}, r"metadata\['loss'\].*not JSON compliant"),
        ({"pair": (1, 2)}, r"metadata\['pair'\].*lists"),
        ({"by": {1: "x"}}, r"metadata\['by'\].*string keys"),
        ({1: "x"}, r"metadata\[1\].*string keys"),
        ({"set": {1}}, r"metadata\['set'\]"),
        ({"digits": 10**5000}, r"metadata\['digits'\]"),
    ],
)
def test_metadata_that_json_cannot_hold(metadata, message, path):
    with pytest.raises(flows.FlowsError, match=message):
        save(path, tiny, drawn(tiny, 1), 1, metadata=metadata)
    assert not path.exists()


def test_metadata_that_never_ends(path):
    metadata = {}
    metadata["itself"] = metadata
    with pytest.raises(flows.FlowsError, match=r"metadata\['itself'\]"):
        save(path, tiny, drawn(tiny, 1), 1, metadata=metadata)


def test_a_header_holds_the_constructor_alone(path):
    text = {"text": "x" * 2**21}
    save(path, tiny, drawn(tiny, 1), 1, metadata=text)
    assert describe(path)["metadata"] == text, "longer than a header may be"
    with pytest.raises(flows.FlowsError, match="more than can be read"):
        save(path, flows.Uniform(low=(0.0,) * 300_000), {}, 300_000)
    assert describe(path)["metadata"] == text


def test_describe(path):
    init_fun, event, context_dim = MODELS["conditional"]
    save(path, init_fun, drawn(init_fun, event, context_dim), event, context_dim, metadata={"a": [1, None]})
    header = describe(path)
    assert header["code"] == repr(init_fun) == "Flow(AffineCoupling(MLP(4, last_scale=1.0)))"
    assert (header["event"], header["context"], header["metadata"]) == ((2,), (2,), {"a": [1, None]})
    assert (header["flows"], header["format"]) == (flows.__version__, 7)
    assert header["num_params"] == (1 + 2) * 4 + 4 + 4 * 2 + 2
    assert header["tensors"]["bijection/conditioner/0/w"] == {"shape": (3, 4), "dtype": "float32"}
    json.dumps(header)


def test_describe_does_not_need_your_constructors(path):
    init_fun, event, _ = MODELS["user's"]
    save(path, init_fun, drawn(init_fun, event), event)
    header, module = describe(path), Stretch.__module__
    assert header["code"].startswith(f"Flow(bijection=Serial(layers=({module}.Stretch(by=3.0, options={{'a': (1, inf)}}), ")
    assert (header["context"], header["metadata"]) == (None, {})


def test_the_file_is_safetensors(saved):
    tensors = safetensors.numpy.load_file(saved)
    assert bytes(tensors.pop("result:text")) == b'{"metadata":{"unit":"cm"}}'
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"log_scale": [1.0], "shift": [0.0]}


# What cannot be saved


def test_a_function_among_the_arguments_is_named(path):
    for init_fun, message in [
        (flows.Flow(flows.AffineCoupling(flows.MLP(4, activation=lambda x: x))), r"MLP|activation is the function '<lambda>'"),
        (flows.Serial(tiny, lambda rng, input_dim: tiny(rng, input_dim)), r"Serial\.layers\[1\] is the function '<lambda>'"),
        (Stretch(options={"f": np.tanh}), r"Stretch\.options\['f'\] is .*tanh"),
    ]:
        with pytest.raises(flows.FlowsError, match=message):
            save(path, init_fun, init_fun(0, 2).params, 2)
    assert not path.exists()


@pytest.mark.parametrize("init_fun", [lambda rng, input_dim: tiny(rng, input_dim), flows.ActNorm, small, None, tiny(0, 1)])
def test_only_values_of_constructors_are_saved(init_fun, path):
    with pytest.raises(TypeError, match=r"save: init_fun is .*flows\.bijection"):
        save(path, init_fun, {}, 1)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (drawn(tiny, 3), r"ActNorm: params\['log_scale'\] has shape \(3,\), expected \(2,\)"),
        ({"shift": np.ones(2)}, "params lacks 'log_scale'"),
        ([drawn(tiny, 2)], "params is a list of 1, expected a dict"),
        ({"log_scale": np.ones(2, int), "shift": np.ones(2)}, "'log_scale' has dtype int64"),
        ({"log_scale": np.ones(2), "shift": np.ones(2, complex)}, "'shift' has dtype complex128"),
    ],
)
def test_params_of_another_model(params, message, path):
    with pytest.raises(flows.FlowsError, match=message):
        save(path, tiny, params, 2)
    assert not path.exists()


def test_events_and_contexts_that_cannot_be(path):
    for event, context_dim in [("a", 0), (0, 0), (2.5, 0), (2, -1), (2, 1)]:  # ActNorm takes no context
        with pytest.raises((TypeError, flows.FlowsError), match=r"input_dim|context_dim"):
            save(path, tiny, drawn(tiny, 2), event, context_dim)
    assert not path.exists()


def test_names_that_collide(path):
    @flows.bijection
    def Slashes(names):
        def init_fun(rng, shape):
            params = {"a/b": jnp.zeros(1), "a": {"b": jnp.ones(1)}} if names == "twice" else {"__metadata__": jnp.ones(1)}
            return params, lambda params, x: (x, 0 * x.sum()), lambda params, y: y

        return init_fun

    for names in ("twice", "reserved"):
        with pytest.raises(flows.FlowsError, match="keys without"):
            save(path, Slashes(names), drawn(Slashes(names), 1), 1)


def test_a_value_that_would_not_read_back_is_refused(path):
    def twin(function):
        function.__name__ = function.__qualname__ = "Stretch"
        return flows.bijection(function)

    other = twin(lambda by=2.0: flows.ActNorm())  # two constructors of one name
    both = flows.Serial(Stretch(), other())
    with pytest.raises(flows.FlowsError, match="would not read back"):
        save(path, both, drawn(both, 2), 2)
    with pytest.raises(TypeError, match="one name"):
        load(path, [Stretch, other])
    point = flows.VerifyReport("x", ())  # a NamedTuple would come back as a tuple
    with pytest.raises(flows.FlowsError, match="would not read back"):
        save(path, Stretch(options=point), drawn(Stretch(), 2), 2)
