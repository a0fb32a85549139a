"""Beside other libraries: of the same function `flows` finds the same values, log-dets and inverses.

Their numbers, in float64, lie in fixtures/parity, by library; benchmarks/peers/parity.py made them. Where parameters mean
something else there, those of ours that give the same function are computed here.
"""

import functools
import json
import math
from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close

import flows
from flows import transformers as t
from flows.conditioners import Lipschitz, MaskedMLP
from flows.diagnostics import enable_x64

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
PEERS = {file.stem: json.loads(file.read_text())["cases"] for file in sorted(FIXTURES.glob("*.json"))}
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
BOUND = 3.0  # of all splines but that of the circle, whose bound is pi
FLOOR = 1e-3  # of all slopes, and of bins in units of twice the bound
BINS = {"num_bins": 5, "bound": BOUND}


def unsoftplus(y):
    return np.log(np.expm1(y))


def softplus(x):
    return np.logaddexp(0, x)


def softmax(raw):
    return np.exp(raw) / np.exp(raw).sum(-1, keepdims=True)


def floored(raw):
    """The sizes of the bins, in units of 2 BOUND, where a library has the floor and the softmax that ours have."""
    return FLOOR + (1 - FLOOR * raw.shape[-1]) * softmax(raw)


def raw_slope(slope):
    """Of planar and radial maps."""
    return unsoftplus((slope - FLOOR) / (1 - FLOOR)) - unsoftplus(1)


def raw_slope_of_spline(slope):
    return unsoftplus(slope - FLOOR) - unsoftplus(1 - FLOOR)


def planar(w, u, b):
    """w.u' = log(1 + exp(w.u)) - 1 there; u and u' differ along w alone."""
    w, u = w[0], u[0]
    return flows.Planar(), {"w": w, "u": u + (raw_slope(softplus(w @ u)) - w @ u) * w / (w @ w), "b": b[0]}


def radial(z_0, alpha, beta):
    alpha = np.abs(alpha[0])
    return flows.Radial(), {"center": z_0[0], "log_alpha": np.log(alpha), "p": raw_slope(softplus(beta[0]) / alpha)}


def residual(**given):
    """Its matrices, divided by what brings their norms down to 0.9, are not divided by ours: that is below 0.97."""
    first = {"w": given["0.divided"].T, "b": given["0.bias"]}
    last = {"w": given["2.divided"].T, "b": given["2.bias"], "log_beta": np.log(softplus(given["1.beta"][0]))}
    return flows.ResidualBlock(Lipschitz(len(first["b"]), coefficient=0.97)), (first, last)


LINEAR = flows.Serial(flows.InvertibleLinear(), flows.ActNorm())


def linear(lower, upper, log_s, sign, ranks, bias):
    """y = x P L (U + diag(s)) + bias, of unit triangles L and strict ones U."""
    d = len(log_s)
    matrix = {"lower": lower[np.tril_indices(d, -1)], "upper": upper[np.triu_indices(d, 1)], "log_s": log_s}
    return LINEAR, ({**matrix, "fixed": {"ranks": ranks, "sign": sign}}, {"log_scale": np.zeros(d), "shift": -bias})


def invertible_affine(P, L, U, log_S, sign_S):
    return linear(L, U, log_S, sign_S, P.argmax(1), np.zeros(len(P)))


def lu_linear(lower_entries, upper_entries, unconstrained_upper_diag, bias, permutation=(0, 1, 2)):
    """y = L U x' + bias, x' being x permuted: x is a row here, and its matrix U'L' = (U' / s) (s L')."""
    d, s = len(bias), softplus(unconstrained_upper_diag) + FLOOR
    lower, upper = np.eye(d), np.diag(s)
    lower[np.tril_indices(d, -1)], upper[np.triu_indices(d, 1)] = lower_entries, upper_entries
    return linear(upper.T / s, s[:, None] * lower.T, np.log(s), np.ones(d), np.argsort(permutation), bias)


def linear_spline(unnormalized_pdf):
    """It has no floor."""
    return t.LinearSpline(**BINS), np.log(softmax(unnormalized_pdf) - FLOOR).T


def quadratic_spline(unnormalized_widths, unnormalized_heights, slopes):
    """Slopes of area 1, as those of ours have."""
    theta = np.concatenate([unnormalized_widths, np.log(slopes[:, 1:-1] - FLOOR)], 1)
    return t.QuadraticSpline(**BINS, min_slope=FLOOR), theta.T


def cubic_spline(unnormalized_widths, unnormalized_heights, unnorm_derivatives_left, unnorm_derivatives_right):
    """The slopes at its bounds are 1. Only the floors of the heights are others than ours."""
    widths, heights = floored(unnormalized_widths), floored(unnormalized_heights)
    floors, shares = np.full(widths.shape, FLOOR), np.full(widths.shape, 1 / BINS["num_bins"] - FLOOR)
    floors[:, [0, -1]], shares[:, [0, -1]] = widths[:, [0, -1]] / 2, 0.5 / BINS["num_bins"]
    return t.CubicSpline(**BINS), np.concatenate([unnormalized_widths, np.log((heights - floors) / shares)], 1).T


def rational_quadratic(unnormalized_widths, unnormalized_heights, unnormalized_derivatives):
    slopes = raw_slope_of_spline(FLOOR + softplus(unnormalized_derivatives))
    return t.RationalQuadratic(**BINS), np.concatenate([unnormalized_widths, unnormalized_heights, slopes], 1).T


@t.transformer
def Turned():
    """Our circular spline after half a turn, with values in [-pi, pi)."""
    ours = t.CircularRationalQuadratic(BINS["num_bins"])

    def folded(angle):
        return angle - 2 * math.pi * jnp.floor(angle / (2 * math.pi) + 0.5)

    def direct(theta, x):
        y, log_det = ours.direct(theta, x + math.pi)
        return folded(y), log_det

    def inverse(theta, y):
        x, log_det = ours.inverse(theta, y)
        return folded(x - math.pi), log_det

    return ours.num_params, direct, inverse


def bent(raw, limit):
    """Into [-limit, limit], with slope 1 at 0."""
    return raw / (1 + abs(raw) / limit)


def circular_spline(widths, heights, derivatives, ends):
    """Its sizes of bins have no floor; its slopes are between FLOOR and 1 / FLOOR."""
    limit = -math.log(FLOOR)
    sizes = (np.log(softmax(bent(raw, limit / 2)) - FLOOR) for raw in (widths, heights))
    slopes = raw_slope_of_spline(np.concatenate([ends[:, None], np.exp(bent(derivatives, limit))], 1))
    return Turned(), np.concatenate([*sizes, slopes], 1).T


def spline_of(bin_widths, bin_heights, knot_slopes):
    """Of the sizes of all bins, and the slopes of inner knots."""
    raw = (np.log(sizes / (2 * BOUND) - FLOOR) for sizes in (bin_widths, bin_heights))
    return t.RationalQuadratic(**BINS), np.concatenate([*raw, raw_slope_of_spline(knot_slopes)], 1).T


def spline_of_knots(params, x_pos, y_pos, knot_slopes):
    return spline_of(np.diff(x_pos), np.diff(y_pos), knot_slopes[:, 1:-1])


def householder(vectors):
    return flows.Householder(len(vectors)), {"vectors": vectors}


def triangular(scale_tril, lower=True):
    matrix, d = scale_tril if lower else scale_tril.T, len(scale_tril)
    places = np.tril_indices(d, -1) if lower else np.triu_indices(d, 1)
    return flows.Triangular(lower), {"entries": matrix[places], "log_diagonal": np.log(np.diag(matrix))}


@t.transformer
def BentAffine():
    """Our affine map, with its bound on the log-scale undone, and another one, r / (1 + |r| / log 1000), in its place."""
    ours = t.Affine(bound=10.0)

    def theta_of(theta):
        return jnp.stack([10 * jnp.arctanh(bent(theta[0], math.log(1000)) / 10), theta[1]])

    return 2, lambda theta, x: ours.direct(theta_of(theta), x), lambda theta, y: ours.inverse(theta_of(theta), y)


def dense(*arrays):
    """Weights and biases."""
    return tuple({"w": w.T, "b": b} for w, b in zip(arrays[::2], arrays[1::2], strict=True))


def network(*arrays):
    """Weights and biases, of the outputs shift and scale for each feature in turn: ours are all scales, then all shifts."""
    layers = dense(*arrays)
    order = np.arange(len(arrays[-1])).reshape(-1, 2).T[::-1].ravel()
    return *layers[:-1], {key: value[..., order] for key, value in layers[-1].items()}


def coupling(w0, b0, w1, b1):
    params = {"conditioner": network(w0, b0, w1, b1), "transformer": (), "unconditional": {}, "fixed": {}}
    return flows.Coupling(flows.MLP(len(b0)), BentAffine()), params


def maf(**given):
    nets = [network(*(given[f"{i} {kind}{j}"] for j in range(3) for kind in "wb")) for i in range(2)]
    layers = [flows.Autoregressive(MaskedMLP(6, 6, order=order), BentAffine()) for order in ((0, 1, 2), (2, 1, 0))]
    return flows.Serial(*layers), tuple({"conditioner": net, "transformer": (), "fixed": {}} for net in nets)


@flows.conditioner
def FreeForm(freqs):
    """A network of cosines and sines of the time, and of x. Its way is from data at 0 to noise at 1, against our time."""

    def net(rng, input_dim, output_dim):
        params, run = flows.MLP(6, 6, activation="tanh")(rng, 2 * len(freqs) + input_dim - 1, output_dim)

        def apply_fun(params, inputs):
            x, phase = inputs[:, :-1], jnp.asarray([freqs], inputs.dtype) * (1 - inputs[:, -1:])
            return -run(params, jnp.concatenate([jnp.cos(phase), jnp.sin(phase), x], 1))

        return params, apply_fun

    return net


def cnf(freqs, solver="dopri5", steps=200, tolerance=None, **given):
    layers = dense(*(given[f"{kind}{i}"] for i in range(3) for kind in "wb"))
    return flows.Continuous(FreeForm(tuple(freqs.tolist())), solver=solver, steps=steps, tolerance=tolerance), layers


CASES = {
    "normflows": {
        "Planar": planar,
        "Radial": radial,
        "InvertibleAffine": invertible_affine,
        "LULinearPermute": lu_linear,
        "Residual": residual,
    },
    "nflows": {
        "LULinear": lu_linear,
        "linear spline": linear_spline,
        "quadratic spline": quadratic_spline,
        "cubic spline": cubic_spline,
        "rational-quadratic spline": rational_quadratic,
    },
    "zuko": {"coupling": coupling, "MAF": maf, "CNF": cnf, "circular spline": circular_spline},
    "distrax": {"rational-quadratic spline": spline_of_knots},
    "tfp": {
        "Householder": householder,
        "lower triangular": triangular,
        "upper triangular": functools.partial(triangular, lower=False),
        "rational-quadratic spline": spline_of,
    },
}


@functools.cache
def program(layer, event):
    """Both functions of a layer, or of a transformer, as one program."""

    @jax.jit
    def both(params, x, y):
        direct, inverse = (layer.direct, layer.inverse) if event == () else layer(0, event)[1:]
        return direct(params, x), inverse(params, y)

    return both


def test_no_fixture_is_left_out():
    assert {peer: {*cases} for peer, cases in PEERS.items()} == {peer: {*cases} for peer, cases in CASES.items()}


def numbers(peer, name, **options):
    """A layer with the params of a case, and the points and values that were found there, by name."""
    given = {key: np.asarray(value) for key, value in PEERS[peer][name].items()}
    found = {key: given.pop(key) for key in ("x", "y", "log_det", "log_prob") if key in given}
    return *CASES[peer][name](**given, **options), found


def cast(tree, dtype):
    return jax.tree.map(lambda a: np.asarray(a, dtype), tree)


def agree(layer, params, of, dtype):
    with enable_x64() if dtype == "float64" else nullcontext():
        (y, log_det), (x, minus_log_det) = program(layer, of["x"].shape[1:])(*cast((params, of["x"], of["y"]), dtype))
        assert y.dtype == log_det.dtype == x.dtype == dtype
    for found, expected in ((y, of["y"]), (log_det, of["log_det"]), (x, of["x"]), (minus_log_det, -of["log_det"])):
        close(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("peer", "name"), [(peer, name) for peer, cases in CASES.items() for name in cases])
def test_the_same_numbers(peer, name, dtype):
    agree(*numbers(peer, name), dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [pytest.param("float32", 3e-7, marks=pytest.mark.slow), ("float64", 1e-12)])
def test_the_same_numbers_by_adaptive_steps(dtype, tolerance):
    agree(*numbers("zuko", "CNF", solver="tsit5", steps=None, tolerance=tolerance), dtype)


def test_the_same_densities():
    layer, params, of = numbers("zuko", "MAF")
    with enable_x64():
        init_fun = flows.Flow(layer, flows.Normal())
        log_pdf = jax.jit(lambda params, x: init_fun(0, x.shape[1])[1](params, x))
        close(log_pdf({"bijection": params, "prior": {}}, of["x"]), of["log_prob"], TOLERANCE["float64"])
