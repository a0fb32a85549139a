"""Layouts of images, layers in another layout, and couplings of the pixels of one colour of a chessboard."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, error_of
from networks import SmallConv

import flows
from flows import Checkerboard, Patchify, Reshape, Reverse, Squeeze, Stripes, Through
from flows import transformers as t
from flows.core import from_json, to_json
from flows.diagnostics import enable_x64

INFINITY = float("inf")
IMAGES = np.random.default_rng(0).normal(size=(3, 4, 4, 2))
EVEN = np.add.outer(np.arange(4), np.arange(4)) % 2 == 0  # of pixels (i, j), whether i + j is even


def by_formula(event, output, place):
    """An array of where each entry of the output comes from: `place` of an entry's index in the input, one at a time."""
    found = np.full(output, -1)
    numbers = np.arange(np.prod(event)).reshape(event)
    for index in itertools.product(*map(range, event)):
        found[place(*index)] = numbers[index]
    assert (found >= 0).all()
    return found


LAYOUTS = {
    Checkerboard(): ((3, 4, 2), (3, 2, 4), lambda i, j, c: (i, j // 2, (i + j) % 2 * 2 + c)),
    Stripes(axis=0): ((4, 3, 2), (2, 3, 4), lambda i, j, c: (i // 2, j, i % 2 * 2 + c)),
    Stripes(axis=1): ((3, 4, 2), (3, 2, 4), lambda i, j, c: (i, j // 2, j % 2 * 2 + c)),
    Patchify(2): ((4, 6, 3), (6, 12), lambda i, j, c: (i // 2 * 3 + j // 2, (i % 2 * 2 + j % 2) * 3 + c)),
    Patchify(1): ((2, 3, 2), (6, 2), lambda i, j, c: (i * 3 + j, c)),
    Reshape((3, 8)): ((4, 3, 2), (3, 8), lambda i, j, c: divmod((i * 3 + j) * 2 + c, 8)),
    Reshape(24): ((4, 3, 2), (24,), lambda i, j, c: ((i * 3 + j) * 2 + c,)),
    Reverse(): ((4, 3, 2), (4, 3, 2), lambda i, j, c: (i, j, 1 - c)),
    Reverse(axis=0): ((4, 3, 2), (4, 3, 2), lambda i, j, c: (3 - i, j, c)),
    Reverse(axis=-2): ((4, 3, 2), (4, 3, 2), lambda i, j, c: (i, 2 - j, c)),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
def test_entries_go_where_the_formula_says(layout):
    event, output, place = LAYOUTS[layout]
    numbers = by_formula(event, output, place)
    x = np.random.default_rng(1).normal(size=(2, *event)).astype(np.float32)
    params, direct_fun, inverse_fun = layout(0, event)
    y, log_det = direct_fun(params, x)
    np.testing.assert_array_equal(y, x.reshape(2, -1)[:, numbers])
    back, back_log_det = inverse_fun(params, y)
    np.testing.assert_array_equal(back, x)
    assert not np.any(log_det) and not np.any(back_log_det)


def test_reverse_without_an_axis_is_what_it_was():
    assert Reverse() == Reverse(axis=-1) != Reverse(axis=0) and repr(Reverse()) == "Reverse()"
    assert from_json({"constructor": "Reverse", "arguments": {}}) == Reverse() == from_json(to_json(Reverse()))
    assert Reverse()(0, (4, 3, 2)).params["fixed"]["ranks"].tolist() == [2.0, 1.0]
    assert Reverse(axis=1)(0, (4, 3, 2)).params["fixed"]["ranks"].tolist() == [3.0, 2.0, 1.0]


# Through


def split(x, even):
    """Pixels of one colour, (rows, H, W, C) to (rows, H, W / 2, C), one at a time."""
    rows, h, w, c = x.shape
    found = np.zeros((rows, h, w // 2, c))
    for i, j in zip(*np.nonzero(EVEN[:h, :w] == even), strict=True):
        found[:, i, j // 2] = x[:, i, j]
    return found


def test_a_coupling_on_the_checkerboard_is_that_of_a_mask_by_hand():
    net, context = SmallConv(), np.array([0.5, -2.0])
    init_fun = Through(Checkerboard(), flows.Coupling(net, t.Affine(), flip=True), Reverse(axis=0))
    with enable_x64():
        params, direct_fun, inverse_fun = init_fun(0, (4, 4, 2), context_dim=2)
        assert set(params) == {"layout", "layers"} and params["layout"] == {} and len(params["layers"]) == 2
        y, log_det = direct_fun(params, IMAGES, context=context)
        apply_fun = net(0, (4, 2, 4), (4, 2, 4))[1]
        odd = np.concatenate([split(IMAGES, False), np.broadcast_to(context, (3, 4, 2, 2))], -1)  # what is kept, flipped
        theta = jnp.moveaxis(apply_fun(params["layers"][0]["conditioner"], jnp.asarray(odd)).reshape(3, 4, 2, 2, 2), 3, 0)
        moved, logs = t.Affine().direct(theta, jnp.asarray(split(IMAGES, True)))
        np.testing.assert_allclose(log_det, logs.sum((1, 2, 3)), rtol=1e-12)
        assert np.abs(log_det).min() > 0.1
        np.testing.assert_allclose(split(np.asarray(y), True), moved[:, ::-1], rtol=1e-12)
        np.testing.assert_array_equal(split(np.asarray(y), False), split(IMAGES, False)[:, ::-1])
        back, back_log_det = inverse_fun(params, y, context=context)
        close(back, IMAGES, 1e-12)
        close(back_log_det, -log_det, 1e-12)


@flows.bijection
def AddContext():
    """y = x + context + shift, an image context of fewer channels being repeated; shift is measured of both."""

    def init_fun(rng, shape, context_dim=0, init_inputs=None, init_context=None):
        def added(context):
            if isinstance(context_dim, int):
                return context @ jnp.arange(1.0, context_dim + 1, dtype=context.dtype)
            return jnp.repeat(context, shape[-1] // context_dim[-1], axis=-1)

        def direct_fun(params, x, context):
            return x + added(context) + params["shift"], jnp.zeros((), x.dtype)

        def inverse_fun(params, y, context):
            return y - added(context) - params["shift"]

        shift = jnp.zeros(shape)
        if init_inputs is not None:
            shift = -(init_inputs + jax.vmap(added)(init_context)).mean(0)
        return {"shift": shift}, direct_fun, inverse_fun

    return init_fun


@pytest.mark.parametrize(
    ("layout", "channels"),
    [
        (Checkerboard(), 1),
        (Stripes(axis=0), 1),
        (Patchify(2), 1),
        (Squeeze(), 2),
        (Reverse(axis=1), 1),
        (flows.Serial(Patchify(2), Reverse(axis=0)), 1),
        (flows.Serial(Stripes(axis=1), flows.Invert(Stripes(axis=0), input_dim=(8, 2, 2))), 2),
        (Reshape((2, 16)), 2),
    ],
    ids=repr,
)
def test_an_image_context_goes_along(layout, channels):
    """What is added is then the context itself, pixel by pixel; and init measures both in the same layout."""
    context = np.random.default_rng(1).normal(size=(3, 4, 4, channels))
    added = np.repeat(context, 2 // channels, axis=-1)
    init_fun, dims = Through(layout, AddContext()), {"context_dim": (4, 4, channels)}
    with enable_x64():
        params, direct_fun, inverse_fun = init_fun(0, (4, 4, 2), **dims, init_inputs=IMAGES, init_context=context)
        y = direct_fun(params, IMAGES, context=context)[0]
        close(y, IMAGES + added - (IMAGES + added).mean(0), 1e-12)
        close(inverse_fun(params, y, context=context)[0], IMAGES, 1e-12)


def test_a_vector_context_stays_as_it_is():
    for layout, event in ((Checkerboard(), (3, 2, 1)), (Reverse(axis=0), (3, 1)), (Reverse(), (3,))):
        params, direct_fun, _ = Through(layout, AddContext())(0, event, context_dim=3)
        y = direct_fun(params, np.ones((1, *event), np.float32), context=np.arange(3, dtype=np.float32))[0]
        assert np.all(y == 1 + 0 * 1 + 1 * 2 + 2 * 3)


def test_data_reach_the_layers_through_the_layout():
    init_fun = Through(Checkerboard(), flows.ActNorm(), flows.BatchNorm())
    x = IMAGES.astype(np.float32) * 2 + np.where(EVEN, 5.0, -3.0).astype(np.float32)[None, :, :, None]
    params = init_fun(0, (4, 4, 2), init_inputs=x).params
    shift = [x[:, EVEN].mean((0, 1)), x[:, ~EVEN].mean((0, 1))]
    close(params["layers"][0]["shift"], np.concatenate(shift), 1e-4)
    before = {**params, "layers": (params["layers"][0], init_fun(0, (4, 4, 2)).params["layers"][1])}
    jax.tree.map(lambda a, b: close(a, b, 1e-6), flows.remeasure(init_fun, before, x), params)
    assert 'params are not {"layout"' in error_of(lambda: init_fun(0, (4, 4, 2), init_inputs=x, params=params["layers"]))


def test_noise_and_labels_reach_the_layers():
    init_fun = Through(Stripes(axis=1), flows.Dequantize(1.0))
    assert init_fun.likelihood == "lower bound"
    params, direct_fun, _ = init_fun(0, (1, 4, 1))
    noise = direct_fun(params, np.zeros((1, 1, 4, 1), np.float32), rng=1)[0]
    assert len(np.unique(noise)) == 4 and np.abs(noise).max() <= 0.5


# The colours of a chessboard, RealNVP's way


@pytest.mark.parametrize("flip", [False, True])
def test_a_checkerboard_coupling_is_that_of_a_mask_by_hand(flip):
    net, kept = SmallConv(), (EVEN ^ flip)[:, :, None]
    with enable_x64():
        params, direct_fun, inverse_fun = flows.Coupling(net, t.Gated(), mask="checkerboard", flip=flip)(0, (4, 4, 2))
        y, log_det = direct_fun(params, IMAGES)
        seen = np.concatenate([np.where(kept, IMAGES, 0), np.broadcast_to(1.0 * kept, (3, 4, 4, 1))], -1)
        theta = net(0, (4, 4, 3), (4, 4, 4))[1](params["conditioner"], jnp.asarray(seen)).reshape(3, 4, 4, 2, 2)
        expected, logs = t.Gated().direct(jnp.moveaxis(theta, 3, 0), jnp.asarray(IMAGES))
        close(y, np.where(kept, IMAGES, expected), 1e-12)
        np.testing.assert_array_equal(np.where(kept, y, 0), np.where(kept, IMAGES, 0))
        close(log_det, np.where(kept, 0, logs).sum((1, 2, 3)), 1e-12)
        back, back_log_det = inverse_fun(params, y)
        close(back, IMAGES, 1e-12)
        close(back_log_det, -log_det, 1e-12)


def test_a_checkerboard_network_runs_once_and_sees_angles_without_seams():
    runs, dims = [], []

    def net(rng, input_dim, output_dim, init_inputs=None):
        dims.append((input_dim, output_dim))

        def apply_fun(params, inputs):
            runs.append(1)
            theta = params["theta"][None] + inputs.sum((1, 2, 3), keepdims=True)
            return jnp.broadcast_to(theta, (inputs.shape[0], *output_dim))

        measured = jnp.zeros(input_dim[-1]) if init_inputs is None else init_inputs.mean((0, 1, 2))
        return {"theta": jnp.zeros(output_dim), "fixed": {"seen": measured}}, apply_fun

    init_fun = flows.Coupling(net, (t.Moebius(1), t.Additive()), mask="checkerboard")
    x = IMAGES.astype(np.float32)
    params, direct_fun, inverse_fun = init_fun(0, (4, 4, 2), init_inputs=x)
    assert dims[-1] == ((4, 4, 4), (4, 4, 6))  # cos and sin of an angle, a number, the mask; theta as wide as the widest
    kept = x[:, EVEN]
    means = [kept[..., 1].mean(), np.cos(kept[..., 0]).mean(), np.sin(kept[..., 0]).mean(), 1.0]
    close(params["conditioner"]["fixed"]["seen"], np.array(means) / 2, 1e-6)
    runs.clear()
    jax.make_jaxpr(lambda y: inverse_fun(params, y))(x)
    assert len(runs) == 1
    turned = x + np.float32(2 * np.pi) * np.array([1, 0], np.float32)
    close(direct_fun(params, turned)[1], direct_fun(params, x)[1], 1e-4)


@t.transformer
def Unbounded():
    return 1, lambda theta, x: (x * jnp.exp(theta[0]), theta[0]), lambda theta, y: (y * jnp.exp(-theta[0]), -theta[0])


def test_what_a_network_says_of_kept_pixels_is_not_used():
    def net(rng, input_dim, output_dim):
        far = np.where(EVEN, 1e4, 0.1).astype(np.float32)[:, :, None]  # exp of which overflows

        def apply_fun(params, inputs):
            return params["w"] * jnp.broadcast_to(far, (inputs.shape[0], *output_dim))

        return {"w": jnp.ones((), jnp.float32)}, apply_fun

    init_fun = flows.Coupling(net, Unbounded(), mask="checkerboard")
    params, direct_fun, inverse_fun = init_fun(0, (4, 4, 2))
    x = IMAGES.astype(np.float32)
    for fun in (direct_fun, inverse_fun):

        def total(params, x, fun=fun):
            return sum(each.sum() for each in fun(params, x))

        gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(params, x)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
        assert gradients[0]["conditioner"]["w"] != 0


# Supports


def test_supports_go_through_layouts():
    first = flows.Serial(Reshape((2, 2, 1)), flows.FixedAffine(0.5, 0.25), flows.Logit(), Squeeze(), flows.ActNorm())
    low, high = flows.support(first, 4).inputs
    assert low.tolist() == [-0.5] * 4 and high.tolist() == [1.5] * 4
    assert flows.support(first, 4).outputs.low.shape == (1, 1, 4)
    params, log_pdf, _ = flows.Flow(first)(0, 4)
    densities = log_pdf(params, np.array([[0.5, 0.0, 1.0, 1.4], [0.5, 0.0, 1.0, 1.6]], np.float32))
    assert np.isfinite(densities[0]) and densities[1] == -INFINITY
    for init_fun, inputs, outputs in (
        (flows.Serial(flows.Sigmoid(), Checkerboard(), Reverse(axis=0)), (-INFINITY, INFINITY), (0.0, 1.0)),
        (flows.Serial(flows.Sigmoid(), flows.Invert(Squeeze(), input_dim=(4, 4, 2))), (-INFINITY, INFINITY), (0.0, 1.0)),
        (Through(Patchify(2), flows.Logit()), (0.0, 1.0), (-INFINITY, INFINITY)),
        (flows.Invert(Through(Stripes(axis=0), flows.Logit())), (-INFINITY, INFINITY), (0.0, 1.0)),
        (Through(Stripes(axis=0), flows.ActNorm()), (-INFINITY, INFINITY), (-INFINITY, INFINITY)),
    ):
        found = flows.support(init_fun, (2, 2, 8))
        assert [np.unique(end).tolist() for region in (found.inputs, found.outputs) for end in region] == [
            [end] for end in (*inputs, *outputs)
        ]
    mixed = flows.Serial(Checkerboard(), flows.Unconstrain(low=(0.0, -1.0)))
    assert "is not known before Checkerboard()" in error_of(lambda: flows.support(mixed, (2, 2, 1)))


def test_angles_of_a_lattice_stay_angles():
    step = Through(Checkerboard(), flows.Coupling(SmallConv(), t.Moebius(1)))
    model = flows.Flow(flows.Serial(Reshape((2, 2, 1)), step, Reverse(axis=0)), flows.CircularUniform())
    assert flows.support(model, 4).inputs.period.tolist() == [2 * np.pi] * 4
    for layer, said in ((Squeeze(), "makes angles, and the base is of the line"), (flows.ActNorm(), "handed angles, which it")):
        assert said in error_of(lambda layer=layer: flows.Flow(flows.Serial(step, layer))(0, (2, 2, 1)))


# Errors


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Checkerboard()(0, (2, 3, 1)), "the event is (2, 3, 1); expected an image (H, W, C) with an even W"),
        (
            lambda: Checkerboard()(0, 4),
            "the event is (4,); expected an image (H, W, C) with an even W. Pad or crop it, or make an image",
        ),
        (lambda: Stripes(axis=0)(0, (3, 2, 1)), "an even H, as axis=0"),
        (lambda: Stripes(axis=1)(0, (2, 3, 1)), "an even W, as axis=1"),
        (lambda: Stripes(axis=2), "Stripes: axis is 2; expected 0 for rows or 1 for columns"),
        (lambda: Stripes(axis=True), "axis is True"),
        (lambda: Patchify(2)(0, (2, 3, 1)), "H and W multiples of p=2"),
        (lambda: Patchify(0), "Patchify: p is 0"),
        (lambda: Reshape((2, 3))(0, 5), "the event (5,) has 5 numbers, and the shape (2, 3) 6"),
        (lambda: Reshape((2, -1)), "Reshape: shape is (2, -1)"),
        (lambda: Reverse(axis=1)(0, 3), "axis is 1, and the event is (3,); expected a number from -1 to 0"),
        (lambda: Reverse(axis=1.0), "axis is 1.0; expected a whole number"),
        (
            lambda: Through(Squeeze(), flows.FactorOut(flows.ActNorm()))(0, (2, 2, 1)),
            "the layers turn events (1, 1, 4), as the layout makes them, into (4,); expected layers that keep the event",
        ),
        (
            lambda: Through(Checkerboard(), AddContext())(0, (2, 2, 1), context_dim=(4, 4, 1)),
            "context_dim is (4, 4, 1), an image of other sides than the event (2, 2, 1), and cannot be laid out as that is; "
            "expected (2, 2, channels), or a vector",
        ),
        (
            lambda: Through(Reshape(12), AddContext())(0, (2, 2, 3), context_dim=(2, 2, 1)),
            "the layout Reshape(shape=12) of events (2, 2, 3) does not fit the context (2, 2, 1): Reshape: the event",
        ),
        (
            lambda: flows.Coupling(SmallConv(), mask="checkerboard")(0, 4),
            "is for pixels, and the event is (4,); expected an image (H, W, C) of two or more",
        ),
        (lambda: flows.Coupling(SmallConv(), mask="checkerboard")(0, (1, 1, 4)), "the event is (1, 1, 4); expected"),
        (lambda: flows.Coupling(mask="checkerboard", unconditional=t.Affine()), "Give Through(Checkerboard(), Coupling("),
        (lambda: flows.Coupling(mask="chessboard"), "expected one of halves, alternating, random, checkerboard"),
    ],
)
def test_what_does_not_fit_is_refused(call, said):
    assert said in error_of(call)


def test_what_is_no_layer_is_refused():
    for call, said in (
        (lambda: Through(Checkerboard()), "no layers were given"),
        (lambda: Through(Checkerboard, flows.ActNorm()), "argument 1 is the constructor Checkerboard; call it"),
        (lambda: Reshape("a"), "Reshape: shape is 'a'"),
    ):
        with pytest.raises(TypeError, match=said):
            call()
