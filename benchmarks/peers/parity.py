"""What other libraries compute at given parameters, in float64, for tests/models/test_parity.py: `parity.py LIBRARY`.

Each library runs in an environment of its own, once; its numbers lie in tests/fixtures/parity/LIBRARY.json, with the versions
that made them. What to install with pip:

    nflows, zuko    torch nflows zuko               (`.venv-torch`, which `make bench` makes)
    distrax         distrax 'jax<0.11'              (`.venv-peers`, made there too)
    normflows       normflows
    tfp             tfp-nightly jax

A case holds the parameters as the library is given them, what it makes of them where a test needs that, the points x, y = f(x)
and log_det, log|det J| at x. A point is a row; those of splines are numbers, each with parameters of its own.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "parity"
PACKAGES = {
    "normflows": ("normflows", "torch"),
    "nflows": ("nflows", "torch"),
    "zuko": ("zuko", "torch"),
    "distrax": ("distrax", "jax"),
    "tfp": ("tfp-nightly", "jax"),
}
ROWS, POINTS, BINS, BOUND, FLOOR = 6, 16, 5, 3.0, 1e-3
rng = np.random.default_rng(0)


def normal(*shape: int, scale: float = 0.7) -> np.ndarray:
    return scale * rng.normal(size=shape)


def spread() -> np.ndarray:
    """Points for splines: over all bins, and two outside."""
    return np.concatenate([rng.uniform(-BOUND, BOUND, size=POINTS - 2), [-BOUND - 1, BOUND + 0.5]])


def softmax(raw: np.ndarray) -> np.ndarray:
    each = np.exp(raw)
    return each / each.sum(-1, keepdims=True)


def floored(raw: np.ndarray) -> np.ndarray:
    """Sizes of bins that sum to 1."""
    return FLOOR + (1 - FLOOR * BINS) * softmax(raw)


def torch_in_double():
    import torch

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    return torch


def in_torch(given: dict) -> dict:
    import torch

    return {key: torch.as_tensor(value) for key, value in given.items()}


def of_normflows() -> dict:
    torch = torch_in_double()
    from normflows import flows, nets

    def case(layer, x, call=None, **given):
        y, log_det = (call or layer)(torch.as_tensor(x))
        return {**given, "x": x, "y": y, "log_det": log_det * torch.ones(len(x))}

    found, d = {}, 3
    given = {"w": normal(1, d), "u": normal(1, d), "b": normal(1)}
    found["Planar"] = case(flows.Planar((d,), **in_torch(given)), normal(ROWS, d), **given)

    given = {"z_0": normal(1, d), "alpha": normal(1), "beta": normal(1)}
    layer = flows.Radial((d,), torch.as_tensor(given["z_0"]))
    layer.load_state_dict({**layer.state_dict(), **in_torch(given)})
    found["Radial"] = case(layer, normal(ROWS, d), **given)

    # The ways of the next two from data to noise are their products with a matrix; the permutation is not its own inverse.
    given = {"P": np.eye(d)[:, [1, 2, 0]], "sign_S": np.array([1.0, -1.0, 1.0])}
    given |= {"L": normal(d, d), "U": normal(d, d), "log_S": normal(d)}
    layer = flows.mixing.InvertibleAffine(d)
    layer.load_state_dict({**layer.state_dict(), **in_torch(given)})
    found["InvertibleAffine"] = case(layer, normal(ROWS, d), layer.inverse, **given)

    layer = flows.LULinearPermute(d)
    given = {"lower_entries": normal(3), "upper_entries": normal(3), "unconstrained_upper_diag": normal(3), "bias": normal(3)}
    layer.linear.load_state_dict(in_torch(given))
    layer.permutation._permutation.copy_(torch.tensor([1, 2, 0]))
    found["LULinearPermute"] = case(layer, normal(ROWS, d), layer.inverse, **given, permutation=[1, 2, 0])

    # Of two features its log-det can be exact. Its network begins with an activation, which ours does not: from there on.
    d = 2
    net = torch.nn.Sequential(*nets.LipschitzMLP([d, 4, d], lipschitz_const=0.9, init_zeros=False).net[1:])
    given = {"0.weight": normal(4, d), "0.bias": normal(4), "1.beta": normal(1), "2.weight": normal(d, 4), "2.bias": normal(d)}
    net.load_state_dict({**net.state_dict(), **in_torch(given)})
    for layer in (net[0], net[2]):
        layer.compute_weight(True, n_iterations=1000)
    divided = {f"{i}.divided": net[i].compute_weight(False) for i in (0, 2)}
    block = flows.Residual(net, reverse=False, brute_force=True)
    found["Residual"] = case(block, normal(ROWS, d), **given, **divided)
    return found


def of_nflows() -> dict:
    torch = torch_in_double()
    from nflows.transforms.lu import LULinear
    from nflows.transforms.splines import (
        quadratic_spline,
        unconstrained_cubic_spline,
        unconstrained_linear_spline,
        unconstrained_rational_quadratic_spline,
    )

    def case(fun, x, given, told=(), **options):
        y, log_det = fun(torch.as_tensor(x), **in_torch(given), **options)
        return {**given, **dict(told), "x": x, "y": y, "log_det": log_det}

    found, d = {}, 3
    layer = LULinear(d)
    given = {"lower_entries": normal(3), "upper_entries": normal(3), "unconstrained_upper_diag": normal(3), "bias": normal(3)}
    layer.load_state_dict(in_torch(given))
    found["LULinear"] = {**given, **case(layer, normal(ROWS, d), {})}

    tails = {"tail_bound": BOUND, "tails": "linear"}
    found["linear spline"] = case(unconstrained_linear_spline, spread(), {"unnormalized_pdf": normal(POINTS, BINS)}, **tails)

    # With tails, the densities that it puts at the bounds are not 1, and jump there. So we give all of them: those at the
    # bounds are 1, the inner ones such that the area is that of the identity, which its normalisation leaves as it is.
    raw, inner = normal(POINTS, BINS), np.exp(normal(POINTS, BINS - 1))
    around = floored(raw)[:, :-1] + floored(raw)[:, 1:]
    inner *= around.sum(-1, keepdims=True) / (around * inner).sum(-1, keepdims=True)
    slopes = np.pad(inner, ((0, 0), (1, 1)), constant_values=1.0)
    given = {"unnormalized_widths": raw, "unnormalized_heights": np.log(np.expm1((slopes - FLOOR) / (1 - FLOOR) - 1e-3))}
    ends = {"left": -BOUND, "right": BOUND, "bottom": -BOUND, "top": BOUND}
    x = rng.uniform(-BOUND, BOUND, size=POINTS)
    found["quadratic spline"] = case(quadratic_spline, x, given, {"slopes": slopes}, **ends)

    # Outer bins at least half as high as wide, as ours are; inner ones as they come. The slopes at the bounds, 3 sigmoid(raw)
    # times the means of the outer bins, are set to 1.
    widths = normal(POINTS, BINS, scale=0.3)
    ends = floored(widths)[:, [0, -1]] * rng.uniform(0.6, 1.4, size=(POINTS, 2))
    between = (1 - ends.sum(-1, keepdims=True)) * softmax(normal(POINTS, BINS - 2))
    heights = np.log(np.concatenate([ends[:, :1], between, ends[:, 1:]], -1) - FLOOR)
    left, right = (-np.log(3 * (floored(heights) / floored(widths))[:, [i]] - 1) for i in (0, -1))
    given = {"unnormalized_widths": widths, "unnormalized_heights": heights}
    given |= {"unnorm_derivatives_left": left, "unnorm_derivatives_right": right}
    found["cubic spline"] = case(unconstrained_cubic_spline, spread(), given, **tails)

    given = {"unnormalized_widths": normal(POINTS, BINS), "unnormalized_heights": normal(POINTS, BINS)}
    given["unnormalized_derivatives"] = normal(POINTS, BINS - 1)
    found["rational-quadratic spline"] = case(unconstrained_rational_quadratic_spline, spread(), given, **tails)
    return found


def of_zuko() -> dict:
    torch = torch_in_double()
    from zuko.flows import MAF, GeneralCouplingTransform
    from zuko.flows.continuous import FFJTransform
    from zuko.flows.spline import CircularRQSTransform

    def layers_of(net):
        """Weights times their masks, and biases, drawn anew."""
        dense = [layer for layer in net if hasattr(layer, "weight")]
        with torch.no_grad():
            for layer in dense:
                layer.weight.copy_(torch.as_tensor(normal(*layer.weight.shape)))
                layer.bias.copy_(torch.as_tensor(normal(*layer.bias.shape)))
        weights = {f"w{i}": layer.weight * getattr(layer, "mask", 1) for i, layer in enumerate(dense)}
        return weights | {f"b{i}": layer.bias for i, layer in enumerate(dense)}

    found, d = {}, 5
    layer = GeneralCouplingTransform(d, mask=torch.arange(d) < d // 2, hidden_features=(6,))
    given, x = layers_of(layer.hyper), normal(ROWS, d)
    y, log_det = layer().call_and_ladj(torch.as_tensor(x))
    found["coupling"] = {**given, "x": x, "y": y, "log_det": log_det}

    d = 3
    flow = MAF(d, transforms=2, hidden_features=(6, 6))
    given = {f"{i} {key}": value for i in range(2) for key, value in layers_of(flow.transform.transforms[i].hyper).items()}
    x = normal(ROWS, d)
    y, log_det = flow.transform().call_and_ladj(torch.as_tensor(x))
    found["MAF"] = {**given, "x": x, "y": y, "log_det": log_det, "log_prob": flow().log_prob(torch.as_tensor(x))}

    # A smooth network, so that equal steps have their order. The tolerance of log-dets is a hundred times that of points.
    layer = FFJTransform(d, freqs=2, atol=1e-12, rtol=1e-12, hidden_features=(6, 6), activation=torch.nn.Tanh).eval()
    given, x = {**layers_of(layer.ode), "freqs": layer.freqs}, normal(ROWS, d)
    y, log_det = layer().call_and_ladj(torch.as_tensor(x))
    found["CNF"] = {**given, "x": x, "y": y, "log_det": log_det}

    # The slopes at both ends are 1 there. For half the points they are set to others, again one for both.
    given = {"widths": normal(POINTS, BINS), "heights": normal(POINTS, BINS), "derivatives": normal(POINTS, BINS - 1)}
    ends = np.where(np.arange(POINTS) % 2, np.exp(normal(POINTS)), 1.0)
    layer, x = CircularRQSTransform(*in_torch(given).values(), slope=FLOOR), rng.uniform(-np.pi, np.pi, size=POINTS)
    layer.transforms[1].derivatives[:, [0, -1]] = torch.as_tensor(ends)[:, None]
    y, log_det = layer.call_and_ladj(torch.as_tensor(x))
    found["circular spline"] = {**given, "ends": ends, "x": x, "y": y, "log_det": log_det}
    return found


def of_distrax() -> dict:
    import jax

    jax.config.update("jax_enable_x64", True)
    import distrax

    params, x = normal(POINTS, 3 * BINS + 1), spread()
    spline = distrax.RationalQuadraticSpline(params, -BOUND, BOUND, boundary_slopes="identity")
    y, log_det = spline.forward_and_log_det(x)
    knots = {"x_pos": spline.x_pos, "y_pos": spline.y_pos, "knot_slopes": spline.knot_slopes}
    return {"rational-quadratic spline": {"params": params, **knots, "x": x, "y": y, "log_det": log_det}}


def of_tfp() -> dict:
    import jax

    jax.config.update("jax_enable_x64", True)
    from tensorflow_probability.substrates.jax import bijectors

    def case(bijector, x, axes=1, **given):
        log_det = bijector.forward_log_det_jacobian(x, axes) * np.ones(len(x))
        return {**given, "x": x, "y": bijector.forward(x), "log_det": log_det}

    found, d = {}, 3
    vectors = normal(d, d)
    reflections = [bijectors.Householder(v / np.linalg.norm(v)) for v in vectors]
    found["Householder"] = case(bijectors.Chain(reflections[::-1]), normal(ROWS, d), vectors=vectors)  # the last one first

    for name, adjoint in (("lower triangular", False), ("upper triangular", True)):
        scale_tril = bijectors.FillScaleTriL(diag_shift=np.float64(1e-5)).forward(normal(6))
        found[name] = case(bijectors.ScaleMatvecTriL(scale_tril, adjoint=adjoint), normal(ROWS, d), scale_tril=scale_tril)

    sizes = {key: 2 * BOUND * softmax(normal(POINTS, BINS, scale=0.4)) for key in ("bin_widths", "bin_heights")}
    given = {**sizes, "knot_slopes": np.exp(normal(POINTS, BINS - 1, scale=0.4))}
    found["rational-quadratic spline"] = case(
        bijectors.RationalQuadraticSpline(**given, range_min=-BOUND), spread(), 0, **given
    )
    return found


def plain(value) -> list:
    """Lists of numbers, of an array of any library."""
    return np.asarray(value.detach() if hasattr(value, "detach") else value).tolist()


library = sys.argv[1]
cases = {"normflows": of_normflows, "nflows": of_nflows, "zuko": of_zuko, "distrax": of_distrax, "tfp": of_tfp}[library]()
lines = [
    f"{json.dumps(name)}: {json.dumps({key: plain(value) for key, value in case.items()})}" for name, case in cases.items()
]
versions = json.dumps({package: version(package) for package in PACKAGES[library]})
FOLDER.mkdir(parents=True, exist_ok=True)
(FOLDER / f"{library}.json").write_text(f'{{"versions": {versions}, "cases": {{\n' + ",\n".join(lines) + "\n}}\n")
