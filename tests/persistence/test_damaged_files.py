"""Damaged, foreign and hostile files: each is a clear error that names the file."""

import hashlib
import json
import os
import pickle
import random
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from common import error_of
from saved_models import MODELS, Stretch, drawn, same, tiny

import flows
from flows import describe, load, save
from flows.persistence.container import DIGEST, START

# Damage


def refused(path, reader=load):
    with pytest.raises(flows.FlowsError) as error:
        reader(path)
    assert repr(str(path)) in str(error.value)
    return str(error.value)


def test_every_flipped_bit_is_found(saved):
    data = saved.read_bytes()
    assert len(data) < 2000
    with open(saved, "r+b", buffering=0) as file:
        for place, byte in enumerate(data):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), place)
                with pytest.raises(flows.FlowsError, match=str(saved)):
                    load(saved)
            os.pwrite(file.fileno(), bytes([byte]), place)
    load(saved)


def test_flipped_bits_of_a_larger_model_are_found(path):
    init_fun, event, _ = MODELS["Flow of NSF"]
    save(path, init_fun, drawn(init_fun, event), event)
    data = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(data)), 200):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        refused(path, describe)


def test_every_truncation_is_found(saved):
    data = saved.read_bytes()
    for length in range(len(data)):
        saved.write_bytes(data[:length])
        refused(saved)
    for tail in (b"\0", b" ", data):
        saved.write_bytes(data + tail)
        assert "damaged" in refused(saved)


def test_foreign_files(tmp_path, path):
    assert "cannot read" in refused(path) and "cannot read" in refused(tmp_path, describe) and "cannot read" in refused("a\0b")
    for content in [
        b"",
        b"\0" * 1000,
        b"a,b\n1,2\n" * 50,
        pickle.dumps({"a": 1}),
        safetensors.numpy.save({"a": np.ones(3)}),
        safetensors.numpy.save({"a": np.ones(3)}, {"flows": "{}"}),
        (1 << 62).to_bytes(8, "little") + b"{}",
    ]:
        path.write_bytes(content)
        assert "not a file that flows wrote" in refused(path)
        refused(path, describe)


# Files made to harm, with a digest that holds


def forged(path, text, tensors):
    """A file of any content whose digest holds. `tensors` may be the bytes after the header's metadata."""
    text = '{"file_sha256":"' + "0" * 64 + '",' + text
    if isinstance(tensors, bytes):
        header = START + json.dumps(text)[1 + len('{\\"file_sha256\\":\\"') :].encode() + b"}" + tensors
        data = bytearray(len(header).to_bytes(8, "little") + header)
    else:
        data = bytearray(safetensors.numpy.save(tensors, {"flows": text}))
    data[DIGEST] = hashlib.sha256(data).hexdigest().encode()
    path.write_bytes(data)


def call(name, **arguments):
    return {"constructor": name, "arguments": arguments}


TENSORS = {"log_scale": np.ones(2, np.float32), "shift": np.ones(2, np.float32)}
HEADER = {"constructor": call("ActNorm"), "context": None, "event": [2], "flows": "0.1.0", "format": 7}


def test_a_forged_file_that_is_right_is_read(path):
    forged(path, '"header":' + json.dumps(HEADER) + "}", TENSORS)
    same(load(path).params, jax.tree.map(jnp.asarray, TENSORS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"constructor": call("os.system", command="true")}, r"unknown constructor 'os\.system'.*constructors="),
        ({"constructor": call("Actnorm")}, "unknown constructor"),
        ({"constructor": call("load", path="x")}, "unknown constructor"),
        ({"constructor": call("ActNorm", scale=2)}, r"ActNorm takes no argument \['scale'\]"),
        ({"constructor": call("MLP", hidden=[4])}, "neither a bijection nor a distribution"),
        ({"constructor": call("Serial", layers=5)}, "TypeError"),
        ({"constructor": call("Serial", layers=[])}, "Serial: no layers"),
        ({"constructor": call("Serial", layers=["ActNorm"])}, "Serial: argument 1"),
        ({"constructor": call("Repeat", layer=call("ActNorm"), num_layers=-1)}, "Repeat: num_layers"),
        ({"constructor": call("NSF", num_layers="many")}, "num_layers"),
        ({"constructor": call("GMM", means={"dict": {}}, covariances=1, weights=None)}, "cannot be loaded"),
        ({"constructor": {"constructor": "ActNorm"}}, "cannot read"),
        ({"constructor": {"constructor": ["ActNorm"], "arguments": {}}}, "unknown constructor"),
        ({"constructor": {"constructor": "ActNorm", "arguments": []}}, "cannot read"),
        ({"constructor": None}, "neither"),
        ({"constructor": [call("ActNorm")]}, "neither"),
        ({"constructor": call("Flow", bijection=call("ActNorm"))}, "log_scale has shape .* expected None"),
        ({"event": [3]}, r"log_scale has shape \(2,\), expected \(3,\)"),
        ({"event": "ab"}, "input_dim is 'ab'"),
        ({"event": None}, "input_dim is None"),
        ({"event": [[2]]}, "input_dim is"),
        ({"event": [2.0]}, "input_dim is"),
        ({"event": [True]}, "input_dim is"),
        ({"event": {"2": 1}}, "input_dim is"),
        ({"event": [-2]}, "input_dim is"),
        ({"event": [10**30]}, "expected at most 2,147,483,647 numbers"),
        ({"context": [1]}, "context"),
        ({"context": "x"}, "context_dim is 'x'"),
        ({"format": 8, "flows": "9.0"}, r"format is 8, expected 7; it needs flows 9\.0"),
        ({"format": 6}, "format is 6, of a version before 0.1.0, which was never released"),
        ({"format": "7"}, "format is '7'"),
        ({"format": True}, "format is True"),
        ({"extra": 1}, "extra"),
    ],
)
def test_hostile_headers(change, message, path):
    forged(path, '"header":' + json.dumps({**HEADER, **change}) + "}", TENSORS)
    with pytest.raises(flows.FlowsError, match=message) as error:
        load(path)
    assert repr(str(path)) in str(error.value)


@pytest.mark.parametrize("name", HEADER)
def test_a_missing_entry(name, path):
    forged(path, '"header":' + json.dumps({key: value for key, value in HEADER.items() if key != name}) + "}", TENSORS)
    refused(path)
    refused(path, describe)


@pytest.mark.parametrize(
    "text",
    ['"header":1}', '"header":[]}', '"header":{}}', '"head":1}', "", '"header":', '"header":' + "[" * 100_000,
     '"header":' + '{"a":' * 100_000, '"header":' + "9" * 5000 + "}", "\0", "\ud800"],
    ids=range(11),
)  # fmt: skip
def test_headers_that_are_no_headers(text, path):
    forged(path, text, b"}")
    refused(path)
    refused(path, describe)


def test_constructors_nested_without_end(path):
    for depth in (300, 3000, 100_000):
        nested = '{"constructor":"Serial","arguments":{"layers":[' * depth + json.dumps(call("ActNorm")) + "]}}" * depth
        header = json.dumps({**HEADER, "constructor": 0}).replace('"constructor": 0', f'"constructor": {nested}')
        forged(path, f'"header":{header}}}', b"}")
        refused(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {**TENSORS, "extra": np.ones(1, np.float32)},
        {"log_scale": np.ones(2, np.float32)},
        {"log_scale": np.ones(2, np.float32), "Shift": np.ones(2, np.float32)},
        {"log_scale": np.ones(2, np.float32), "shift": np.ones((1, 2), np.float32)},
        {"log_scale": np.ones(2, np.float32), "shift": np.ones(2, np.int32)},
        {},
        b"",
        b"}garbage",
        b',"shift":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b',"shift":{"dtype":"F32","shape":[1e9],"data_offsets":[0,0]}}',
        b',"shift":{"dtype":"F32","shape":[0,99999999999],"data_offsets":[0,0]}}',
        b"," + b'"a":[' * 100_000 + b"}",
    ],
    ids=range(12),
)
def test_hostile_tensors(tensors, path):
    forged(path, '"header":' + json.dumps(HEADER) + "}", tensors)
    refused(path)


@pytest.mark.parametrize("constructors", [Stretch, "Stretch", None, [Stretch()], [len], [lambda: tiny], ["Stretch"], 3, [[]]])
def test_constructors_must_be_constructors(constructors, saved):
    with pytest.raises(TypeError, match="expected a list of constructors"):
        load(saved, constructors=constructors)


def test_a_constructor_that_is_not_given_is_named(path):
    save(path, Stretch(), drawn(Stretch(), 2), 2)
    assert "Stretch" in refused(path) and "constructors=[...]" in refused(path)
    load(path, constructors=[flows.ActNorm, Stretch, Stretch])


def test_a_constructor_that_changed_since(path):
    save(path, Stretch(3.0), drawn(Stretch(), 2), 2)

    def older(function):
        function.__name__ = "Stretch"
        return flows.bijection(function)

    for changed, message in [
        (older(lambda factor=1.0: tiny), "takes no argument"),
        (older(lambda by, options: tiny), "its params are not the params of"),
        (older(lambda by, options: 1 / 0), "ZeroDivisionError"),
    ]:
        with pytest.raises(flows.FlowsError, match=message) as error:
            load(path, [changed])
        assert repr(str(path)) in str(error.value) and flows.__version__ in str(error.value)


# Files that ask for too much

MASKED = "conditioners.MaskedMLP"
BOMBS = {
    "features": (call("Autoregressive", conditioner=call(MASKED, hidden=[8])), [8 * 10**6], "asks for 320,000,000 bytes"),
    "layers": (call("Serial", layers=[call("ActNorm")] * 15_000), [2], "more than 10,000 constructors"),
    "a deep network": (call("MAF", num_layers=1, hidden=[1] * 100_000), [2], "layers and components"),
    "a wide network": (call("Coupling", conditioner=call("MLP", hidden=[10**5, 10**5])), [2], "asks for 40,0"),
    "a matrix": (call("InvertibleLinear"), [10**5], "asks for 80,000,"),
    "components of components": (
        call("Mixture", components=[call("Mixture", components=[call("Normal")], num_components=9_000)], num_components=9_000),
        [2],
        "more than 10,000 layers and components",
    ),
    "places": (call("Coupling"), [2**26], "asks for 268,435,456 bytes"),
    "places of what is kept": (call("Coupling"), [2**22], "asks for 167,772,160 bytes"),
    "bins": (call("NSF", num_bins=10**8), [2], "asks for 400,000,000 bytes"),
}
LOADER = """
import resource, sys, time
import flows
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        flows.load(path)
    except flows.FlowsError as error:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - limit) / 1000
        assert time.process_time() - start < 2, (path, time.process_time() - start)
        assert grown < 200, (path, grown)
        print(error)
"""


def test_a_small_file_cannot_ask_for_all_of_the_memory(tmp_path):
    """In a process of its own, with a limit that a failure meets before the machine does."""
    paths = []
    for name, (constructor, event, _) in BOMBS.items():
        paths.append(tmp_path / name)
        forged(paths[-1], '"header":' + json.dumps({**HEADER, "constructor": constructor, "event": event}) + "}", TENSORS)
    # Started by a small process, as one counts the memory of the process that starts it.
    small = [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"]
    found = subprocess.run([*small, sys.executable, "-c", LOADER, *paths], capture_output=True, text=True, check=True)
    for line, (_, _, told) in zip(found.stdout.splitlines(), BOMBS.values(), strict=True):
        assert told in line and ("give max_bytes=" in line or "constructors" in line)


def test_what_is_large_loads_where_it_is_allowed(path):
    wide = flows.Flow(flows.LeakyReLU())
    save(path, wide, drawn(wide, (1024, 1024, 3)), (1024, 1024, 3))
    load(path)
    save(path, wide, drawn(wide, (3000, 3000)), (3000, 3000))
    assert "asks for 36,000,000 bytes or more, of which 33,554,432 are allowed" in refused(path)
    load(path, max_bytes=10**9)
    assert "max_bytes is 0; expected a whole number" in error_of(lambda: load(path, max_bytes=0))


@pytest.mark.parametrize(
    "init_fun",
    [
        flows.Repeat(flows.ActNorm(), 2_000),
        flows.Mixture(flows.Normal(trainable=True), num_components=2_000),
        flows.Serial(*[flows.FixedAffine(1 + i / 1000) for i in range(200)]),
        flows.Flow(flows.RealNVP(40, hidden=(2,), scan=False)),
        flows.Flow(flows.MAF(1, hidden=(200, 200))),
    ],
    ids=["loop", "mixture", "layers", "models", "wide"],
)
def test_what_is_deep_or_wide_loads_unasked(init_fun, path):
    save(path, init_fun, jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes_of(init_fun)), 2)
    load(path)


def shapes_of(init_fun):
    return jax.eval_shape(lambda: init_fun(0, 2).params)


def test_a_header_is_short(path):
    forged(path, '"header":' + json.dumps({**HEADER, "metadata": {"a": "b" * 2**20}}) + "}", TENSORS)
    assert "bytes, expected at most 1,048,576" in refused(path)
