"""Writes models to files that later versions have to load, with rows and what each model says of them.

    python tests/files/make.py FOLDER/format_2 --only nsf_7 naf_11

FOLDER/format_2/<name>.flows is one model for each entry of `MODELS`, `LAYERS` and `DISTRIBUTIONS` below, or for those named,
written by the `flows` that Python imports. FOLDER/format_2/rows.npz holds, for each of them, "<name>/x" (4 rows),
"<name>/context" where there is one, and "<name>/log_pdf"; for a bijection "<name>/outputs" and "<name>/log_det" instead.
`test_old_files.py` reads both.

A folder is written once, and stays as it is: what it holds are files as users have them. What a later version adds (a model, a
layer, an argument that changes params) goes to a new folder, whose name says the format of its files.

Params are float32, as users' are, and moved away from their start, so that no two leaves are alike: a reader that mixed them up
would be noticed. What is expected is computed from the same params in float64. Thus it does not depend on how a version, a
compiler or a device rounds, and a model is refused here if float32 is not well within the tolerance of the test.
"""

import argparse
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import flows
from flows import transformers as t
from flows.conditioners import MaskedMLP, MaskedResidual, Residual
from flows.diagnostics import enable_x64

ROWS, SEEDS, LARGEST = 4, 20, 1000
TOLERANCE = 1e-6  # of the test, relative beyond 1
FLOATS = 0.4 * TOLERANCE  # of float32 here: it leaves room for other compilers


class Case(NamedTuple):
    init_fun: Any
    event: Any = 3
    context: Any = 0
    unit: bool = False  # whether the rows are in the unit interval
    stir: float = 0.2  # how far trained leaves are moved
    spread: float = 1.0  # of rows


# Constructors as a user writes them, around what cannot be written to a file: functions, and networks of other libraries.


@flows.conditioner
def Convolution(width: int = 4):
    """For events of several axes, which the library has no network for."""

    def net(rng, input_dim, output_dim):
        keys = jax.random.split(rng)
        w1 = jax.random.normal(keys[0], (3, 3, input_dim[-1], width)) / 6
        w2 = jax.random.normal(keys[1], (1, 1, width, output_dim[-1])) / 6

        def apply_fun(params, inputs):
            layout = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(inputs, params["first"], (1, 1), "SAME", dimension_numbers=layout)
            return jax.lax.conv_general_dilated(jnp.tanh(x), params["last"], (1, 1), "SAME", dimension_numbers=layout)

        return {"first": w1, "last": w2}, apply_fun

    return net


@flows.bijection
def Wave(steepness: float = 0.3):
    """`FromFunction`: each entry is moved by the one before it."""

    def fun(params, x):
        y = x + steepness * jnp.sin(x) * jnp.exp(params["a"])
        return y + params["b"] * jnp.concatenate([jnp.ones(1, y.dtype), y[:-1]])

    return flows.FromFunction(fun, lambda rng, shape: {"a": -jnp.ones(()), "b": 0.5 * jnp.ones(())})


@flows.bijection
def Kept(options=None):
    """Leaves of every dtype that a file keeps, an empty one and one without axes; `options` are only there to be written."""

    def init_fun(rng, shape):
        params = {
            "half": jnp.full(shape, 0.5, jnp.float16),
            "brain": (jnp.full(shape, 1.5, jnp.bfloat16), jnp.zeros((0, 2))),
            "scale": jnp.asarray(2.0),
        }
        return params, direct_fun, inverse_fun

    def factor(params, x):
        return (params["scale"] * params["half"].astype(float) * params["brain"][0].astype(float)).astype(x.dtype)

    def direct_fun(params, x):
        return x * factor(params, x), jnp.log(jnp.abs(factor(params, x))).sum()

    def inverse_fun(params, y):
        return y / factor(params, y)

    return init_fun


@flows.bijection
def Original():
    """The calls of the original jax-flows: networks of two and of three arguments, masks of the user's own."""
    from jax.example_libraries import stax

    def transform(rng, input_dim, output_dim):
        init_fun, apply_fun = stax.serial(stax.Dense(4), stax.Tanh, stax.Dense(output_dim))
        return init_fun(rng, (input_dim,))[1], apply_fun

    def masked_transform(rng, input_dim):
        hidden, outputs = np.arange(4) % (input_dim - 1), np.tile(np.arange(input_dim), 2)
        masks = hidden[None] >= np.arange(input_dim)[:, None], outputs[None] > hidden[:, None]
        first, last = (flows.MaskedDense(mask.astype(np.float32)) for mask in masks)
        init_fun, apply_fun = stax.serial(first, stax.Tanh, last)
        return init_fun(rng, (input_dim,))[1], apply_fun

    return flows.Serial(flows.AffineCoupling(transform), flows.Reverse(), flows.MADE(masked_transform))


@flows.conditioner
def Adapted(library: str, width: int = 4):
    """A network of another library, which is imported when it is asked for."""
    from flows.conditioners import FromEquinox, FromLinen, FromNNX, FromStax

    if library == "equinox":
        import equinox as eqx

        return FromEquinox(lambda key, inputs, outputs: eqx.nn.MLP(inputs, outputs, width, 1, key=key))
    if library == "linen":
        from flax import linen

        return FromLinen(lambda outputs: linen.Sequential([linen.Dense(width), linen.relu, linen.Dense(outputs)]))
    if library == "nnx":
        from flax import nnx

        def make(rngs, inputs, outputs):
            return nnx.Sequential(nnx.Linear(inputs, width, rngs=rngs), nnx.relu, nnx.Linear(width, outputs, rngs=rngs))

        return FromNNX(make)
    from jax.example_libraries import stax

    return FromStax(lambda outputs: stax.serial(stax.Dense(width), stax.Relu, stax.Dense(outputs)))


OWN = [Convolution, Wave, Kept, Original, Adapted]  # what flows.load has to be given


# Every model as users make it, but with small networks. Depths are about those at which the first version makes a loop of a
# stack: beyond 4 layers of affine models, beyond 10 of the others. Params of a loop are stacked, so what a depth meant when a
# file was written is part of the file.

few = {"hidden": (8,)}
deep = {"hidden": (4,)}
tiny = {"hidden": (4,), "num_bins": 3}
integral = {"integrand": (4,), "embedding": 2, "num_nodes": 10}
squares = {"num_polynomials": 2, "degree": 1}


def affine_models() -> dict[str, Case]:
    """NICE, RealNVP, Glow, MAF and IAF: in a loop beyond 4 layers."""
    cases = {"nice": Case(flows.Flow(flows.NICE(**few), flows.Logistic()))}
    for name, model in {"realnvp": flows.RealNVP, "glow": flows.Glow, "maf": flows.MAF, "iaf": flows.IAF}.items():
        cases[name] = Case(flows.Flow(model(4, **few)))
        cases[f"{name}_conditional"] = Case(flows.Flow(model(3, **few)), context=2)
    for name, model in {"nice": flows.NICE, "realnvp": flows.RealNVP, "glow": flows.Glow, "maf": flows.MAF}.items():
        cases[f"{name}_plain"] = Case(flows.Flow(model(2, hidden=(8, 4), activation="tanh", plain=True)))
    cases["iaf_plain"] = Case(flows.Flow(flows.IAF(2, plain=True, **few)))
    # 5 and 7 leave an odd layer after the loop of models whose halves take turns.
    cases["nice_5"] = Case(flows.Flow(flows.NICE(5, **deep)))
    cases["realnvp_6"] = Case(flows.Flow(flows.RealNVP(6, **deep)))
    cases["realnvp_7"] = Case(flows.Flow(flows.RealNVP(7, plain=True, **deep)))
    cases["realnvp_8_conditional"] = Case(flows.Flow(flows.RealNVP(**deep)), context=2)
    cases["glow_8"] = Case(flows.Flow(flows.Glow(**deep)))
    cases["maf_5"] = Case(flows.Flow(flows.MAF(**deep)))
    cases["maf_6_plain"] = Case(flows.Flow(flows.MAF(6, plain=True, **deep)), event=2)
    cases["maf_5_conditional"] = Case(flows.Flow(flows.MAF(**deep)), context=2)
    cases["iaf_5"] = Case(flows.Flow(flows.IAF(**deep)))
    # Said, whatever the depth; a loop over pairs of which there are none is no loop.
    cases["nice_loop"] = Case(flows.Flow(flows.NICE(2, scan=True, **few)))
    cases["nice_unrolled"] = Case(flows.Flow(flows.NICE(6, scan=False, **deep)))
    cases["realnvp_1_loop"] = Case(flows.Flow(flows.RealNVP(1, scan=True, **few)))
    cases["realnvp_3_loop"] = Case(flows.Flow(flows.RealNVP(3, scan=True, **few)))
    cases["realnvp_5_unrolled"] = Case(flows.Flow(flows.RealNVP(5, scan=False, **deep)))
    cases["glow_2_loop"] = Case(flows.Flow(flows.Glow(2, scan=True, **few)))
    cases["glow_5_unrolled"] = Case(flows.Flow(flows.Glow(5, scan=False, **deep)))
    cases["maf_1_loop"] = Case(flows.Flow(flows.MAF(1, scan=True, **few)))
    cases["maf_6_unrolled"] = Case(flows.Flow(flows.MAF(6, scan=False, **deep)))
    cases["iaf_2_loop"] = Case(flows.Flow(flows.IAF(2, scan=True, **few)))
    return cases


def spline_models() -> dict[str, Case]:
    """NSF: in a loop beyond 10 layers; each spline in each kind of network."""
    cases = {}
    for spline in ("rational_quadratic", "quadratic", "cubic", "linear", "linear_rational"):
        cases[f"nsf_{spline}"] = Case(flows.Flow(flows.NSF(1, spline=spline, **tiny)))
    cases["nsf_autoregressive"] = Case(flows.Flow(flows.NSF(1, autoregressive=True, hidden=(8, 8), num_bins=3)))
    cases["nsf_linear_autoregressive"] = Case(flows.Flow(flows.NSF(1, spline="linear", autoregressive=True, **tiny)))
    cases["nsf_5"] = Case(flows.Flow(flows.NSF(**tiny)), event=2)
    cases["nsf_5_autoregressive"] = Case(flows.Flow(flows.NSF(autoregressive=True, spline="linear", **tiny)), event=2)
    cases["nsf_conditional"] = Case(flows.Flow(flows.NSF(1, dropout=0.1, **tiny)), context=2)
    cases["nsf_autoregressive_conditional"] = Case(
        flows.Flow(flows.NSF(1, autoregressive=True, spline="cubic", **tiny)), context=2
    )
    cases["nsf_plain"] = Case(flows.Flow(flows.NSF(2, plain=True, hidden=(8, 4), num_bins=3, bound=4.0)))
    cases["nsf_plain_autoregressive"] = Case(
        flows.Flow(flows.NSF(2, plain=True, autoregressive=True, spline="quadratic", **tiny))
    )
    cases["nsf_7"] = Case(flows.Flow(flows.NSF(7, **tiny)))
    cases["nsf_10_plain"] = Case(flows.Flow(flows.NSF(10, plain=True, spline="linear", **tiny)), event=2)
    cases["nsf_11"] = Case(flows.Flow(flows.NSF(11, **tiny)))
    cases["nsf_12_plain"] = Case(flows.Flow(flows.NSF(12, plain=True, **tiny)))
    cases["nsf_12_autoregressive"] = Case(flows.Flow(flows.NSF(12, autoregressive=True, spline="linear_rational", **tiny)))
    cases["nsf_2_loop"] = Case(flows.Flow(flows.NSF(2, scan=True, **tiny)), context=2)
    cases["nsf_11_unrolled"] = Case(flows.Flow(flows.NSF(11, scan=False, plain=True, spline="linear", **tiny)), event=2)
    return cases


def of_one() -> list:
    """Models of one feature: where nothing is seen, networks give way to constants."""
    splines = [flows.NSF(1, **tiny), flows.NSF(1, autoregressive=True, plain=True, **tiny)]
    return [flows.RealNVP(2, **few), flows.Glow(1, **few), flows.MAF(2, **few), flows.IAF(1, **few), *splines]


def monotone_models() -> dict[str, Case]:
    """NAF, BNAF, UMNN, SOS and GaussianizationFlow, in a loop beyond 10 layers; and MixtureMADE."""
    return {
        "naf": Case(flows.Flow(flows.NAF(num_units=2, **deep))),
        "naf_11": Case(flows.Flow(flows.NAF(11, num_units=2, **deep))),
        "naf_conditional": Case(flows.Flow(flows.NAF(2, num_units=3, **few)), context=2),
        "bnaf": Case(flows.Flow(flows.BNAF(hidden=(3,)))),
        "bnaf_12": Case(flows.Flow(flows.BNAF(12, hidden=(2,)))),
        "bnaf_conditional": Case(flows.Flow(flows.BNAF(2, hidden=(3, 2))), context=2),
        "umnn": Case(flows.Flow(flows.UMNN(**deep, **integral)), event=2),
        "umnn_11": Case(flows.Flow(flows.UMNN(11, **deep, **integral))),
        "umnn_conditional": Case(flows.Flow(flows.UMNN(1, **few, **integral)), context=2),
        "sos": Case(flows.Flow(flows.SOS(**deep, **squares)), event=2, stir=0.1, spread=0.5),
        "sos_11": Case(flows.Flow(flows.SOS(11, **deep, **squares)), event=2, stir=0.1, spread=0.3),
        "sos_conditional": Case(flows.Flow(flows.SOS(2, **few)), context=2, stir=0.05, spread=0.5),
        "gaussianization": Case(flows.Flow(flows.GaussianizationFlow(num_components=3))),
        "gaussianization_11": Case(flows.Flow(flows.GaussianizationFlow(11, num_components=2, num_reflections=2))),
        "models_of_one_feature": Case(flows.Flow(flows.Serial(*of_one())), event=1),
        "mixture_made": Case(flows.MixtureMADE(3, **few)),
        "mixture_made_conditional": Case(flows.MixtureMADE(2, **few), context=2),
        "mixture_made_of_one_feature": Case(flows.MixtureMADE(3, **few), event=1),
        "maf_mixture_made": Case(flows.Flow(flows.MAF(2, **few), flows.MixtureMADE(3, **few))),
        "maf_mixture_made_conditional": Case(flows.Flow(flows.MAF(1, **few), flows.MixtureMADE(2, **few)), context=2),
    }


MODELS = {**affine_models(), **spline_models(), **monotone_models()}


# Compositions: together they have every layer, every transformer and every network.

net = flows.MLP(6, activation="tanh", last_scale=0.3)  # its outputs are bounded, so that chains of layers stay moderate
masked = MaskedMLP(6, activation="tanh", last_scale=0.3)
residual = Residual(6, blocks=1, activation="tanh", last_scale=0.3, batch_norm=True, dropout=0.1)
ordered = MaskedResidual(6, blocks=1, activation="tanh", last_scale=0.3, batch_norm=True, dropout=0.1, order=(2, 0, 1))
spline = t.RationalQuadratic(num_bins=3)
integrated = t.MonotonicNetwork((3,), embedding=2, num_nodes=10)

TRANSFORMERS = [
    t.Additive(),
    t.Affine(),
    t.Affine(2.0, scale="exp"),
    t.Affine(scale="sigmoid"),
    t.Bernstein(degree=4),
    t.CircularRationalQuadratic(num_bins=3),
    t.Cubic(num_bins=3, bound=2.0),
    t.DeepSigmoidal(num_units=2),
    t.Gated(bias=1.0),
    t.Gaussianization(num_components=2),
    t.Inverse(t.Affine()),
    t.Linear(num_bins=3),
    t.LinearRational(num_bins=3),
    t.MixtureCDF(num_components=2),
    t.MonotonicNetwork((4, 3), embedding=3, num_nodes=12),
    t.Quadratic(num_bins=3),
    t.RationalQuadratic(num_bins=3),
    t.SumOfSquares(2, degree=1),
]
ALL = len(TRANSFORMERS)

couplings = [
    flows.Coupling(),
    flows.Coupling(net, flip=True, squash=4.0),
    flows.Coupling(net, spline, mask="random"),
    flows.Coupling(net, spline, mask="alternating", unconditional=t.Affine()),
    flows.Coupling(residual, spline, mask=(True, False, True, False, False), unconditional=spline, flip=True),
    flows.AffineCoupling(net),
    flows.AffineCouplingSplit(net, flows.MLP()),
]

more_couplings = [
    flows.Coupling(net, integrated),
    flows.Coupling(flows.MLP(4, 4, activation="gelu"), integrated, mask="random", unconditional=integrated),
    flows.Coupling(net, (t.Affine(), spline, t.Additive(), spline, integrated), unconditional=(spline, *[t.Affine()] * 4)),
    flows.NeuralSplineCoupling(K=3, hidden_dim=4),
    flows.Invert(flows.Coupling(net, spline)),
]

autoregressives = [
    flows.Autoregressive(masked),
    flows.Autoregressive(masked, spline, random_order=True, squash=4.0),
    flows.Autoregressive(ordered, spline),
    flows.Autoregressive(MaskedMLP(4, 4, order=(1, 2, 0)), integrated),
    flows.Autoregressive(masked, integrated, random_order=True),
    flows.Autoregressive(masked, (t.Affine(), spline, integrated)),
]

inverses = [
    flows.InverseAutoregressive(masked),
    flows.InverseAutoregressive(ordered, t.Affine(2.0), random_order=True),
    flows.MADE(masked),
    flows.Invert(flows.MADE(MaskedMLP(4))),
    flows.BlockAutoregressive(3, 2),
]

linear = [
    flows.Dequantize((0.5, 0.0, 1.0)),
    flows.Standardize(),
    flows.ActNorm(),
    flows.BatchNorm(0.5),
    flows.Scale(),
    flows.FixedAffine((-1.0, 0.5, 2.0), 0.25),
    flows.FixedInvertibleLinear(),
    flows.InvertibleLinear(),
    flows.Householder(),
    flows.Householder(2),
    flows.Reverse(),
    flows.Shuffle(),
    flows.Invert(flows.InvertibleLinear()),
    flows.Repeat(flows.Serial(flows.InvertibleLinear(), flows.BatchNorm(), flows.Shuffle()), 3),
    flows.Repeat(flows.Invert(flows.Repeat(flows.AffineCoupling(net), 2)), 2),
    flows.Invert(flows.Serial(flows.ActNorm(), flows.Coupling(net, mask="random"))),
    flows.FactorOut(flows.ActNorm(), flows.FactorOut(flows.Scale())),
]

scalar = [
    flows.Logit(),
    flows.LeakyReLU(0.5),
    flows.Sigmoid(clip_before_logit=False),
    flows.FixedAffine(0.5, 0.25),
    flows.Power(1.5),
    flows.Invert(flows.Exp()),
    flows.Softplus(),
    flows.Invert(flows.Softplus()),
    flows.Tanh(),
    flows.Invert(flows.Tanh()),
    flows.NormalCDF(0.5, 2.0),
    flows.Invert(flows.LogisticCDF(0.5, 2.0)),
    flows.LogisticCDF(),
    flows.Invert(flows.NormalCDF()),
    flows.Exp(),
    flows.Power(-0.5),
    flows.Invert(flows.Exp()),
]

conditional = [
    flows.Coupling(net, spline),
    flows.Coupling(Residual(6, blocks=2, last_scale=0.3), t.Affine()),
    flows.Coupling(residual, integrated, mask="random", unconditional=spline),
    flows.AffineCouplingSplit(net, net),
    flows.Autoregressive(ordered, spline, random_order=True),
    flows.InverseAutoregressive(masked),
    flows.MADE(masked),
    flows.BlockAutoregressive(3),
    flows.Elementwise(spline, net),
    flows.Elementwise(integrated, residual),
    flows.Elementwise((t.Affine(), spline, t.Additive()), flows.MLP()),
    flows.Repeat(flows.Serial(flows.ActNorm(), flows.Autoregressive(masked), flows.Reverse()), 2),
    flows.Invert(flows.AffineCoupling(net)),
]

of_one_feature = [
    flows.Coupling(net, spline),
    flows.Coupling(net, integrated, mask="random", unconditional=spline),
    flows.AffineCoupling(net),
    flows.NeuralSplineCoupling(K=3),
    flows.Autoregressive(masked, spline),
    flows.Autoregressive(masked, integrated, random_order=True),
    flows.InverseAutoregressive(masked),
    flows.MADE(masked),
    flows.Elementwise(spline),
]

images = [
    flows.Dequantize(0.01),
    flows.Logit(),
    flows.Standardize(),
    flows.Squeeze(),
    flows.ActNorm(),
    flows.BatchNorm(),
    flows.Scale(),
    flows.FixedAffine((1.0, -0.5, 2.0, 0.5), 0.1),
    flows.Shuffle(),
    flows.Reverse(),
    flows.Householder(2),
    flows.FixedInvertibleLinear(),
    flows.Elementwise(t.Affine()),
]

scales = [
    flows.Squeeze(),
    flows.ActNorm(),
    flows.InvertibleLinear(),
    flows.Coupling(Convolution(), t.Affine()),
    flows.Repeat(flows.Serial(flows.InvertibleLinear(), flows.Coupling(Convolution(), spline, mask="alternating")), 2),
    flows.FactorOut(
        flows.Squeeze(), flows.InvertibleLinear(), flows.Coupling(Convolution(3), flip=True), flows.FactorOut(flows.ActNorm())
    ),
    flows.ActNorm(),
]

images_of_context = [
    flows.Coupling(Convolution(), unconditional=t.Affine(), mask="random"),
    flows.Elementwise(t.Affine(), net),
    flows.Invert(flows.Squeeze(), input_dim=(4, 4, 1)),
    flows.ActNorm(),
]

LAYERS = {
    "couplings": Case(flows.Flow(flows.Serial(*couplings)), event=5, stir=0.1),
    "more_couplings": Case(flows.Flow(flows.Serial(*more_couplings)), event=5, stir=0.1),
    "autoregressives": Case(flows.Flow(flows.Serial(*autoregressives)), stir=0.1),
    "inverses": Case(flows.Flow(flows.Serial(*inverses)), stir=0.1),
    "linear": Case(flows.Flow(flows.Serial(*linear), flows.Normal(trainable=True)), stir=0.1),
    "scalar": Case(flows.Flow(flows.Serial(*scalar), flows.StudentT(df=3.0)), unit=True),
    "transformers": Case(flows.Flow(flows.Serial(*(flows.Elementwise(each) for each in TRANSFORMERS))), event=2),
    "transformers_in_a_coupling": Case(
        flows.Flow(flows.Coupling(net, [t.Affine(), *TRANSFORMERS], mask=[True] + [False] * ALL)), event=1 + ALL
    ),
    "conditional": Case(
        flows.Flow(flows.Serial(*conditional), flows.Normal(covariance="full", conditioner=net)), context=2, stir=0.1
    ),
    "images_of_context": Case(flows.Flow(flows.Serial(*images_of_context)), event=(2, 2, 4), context=2),
    "of_one_feature": Case(flows.Flow(flows.Serial(*of_one_feature)), event=1),
    "of_one_feature_conditional": Case(flows.Flow(flows.Serial(*of_one_feature[1::2])), event=1, context=2),
    "images": Case(flows.Flow(flows.Serial(*images)), event=(4, 4, 1), unit=True, stir=0.1),
    "scales_of_images": Case(flows.Flow(flows.Serial(*scales), flows.Normal(trainable=True)), event=(4, 4, 1), stir=0.1),
    "own": Case(
        flows.Flow(
            flows.Serial(
                Wave(0.2),
                Original(),
                Kept({"low": float("-inf"), "columns": ("a", 1, 2.5, True, None)}),
                flows.Coupling(Adapted("stax")),
            )
        )
    ),
    "equinox": Case(flows.Flow(flows.Coupling(Adapted("equinox"), spline))),
    "linen": Case(flows.Flow(flows.Coupling(Adapted("linen"), spline))),
    "nnx": Case(flows.Flow(flows.Coupling(Adapted("nnx"), spline))),
    # Bijections without a flow, whose params lie at the root.
    "bijection_act_norm": Case(flows.ActNorm()),
    "bijection_coupling": Case(flows.Coupling(net, spline)),
    "bijection_reverse": Case(flows.Reverse()),
    "bijection_softplus": Case(flows.Softplus()),
    "bijection_serial": Case(flows.Serial(flows.InvertibleLinear(), flows.NSF(1, **tiny), flows.Invert(flows.MADE(masked)))),
    "bijection_images": Case(
        flows.Serial(flows.Squeeze(), flows.InvertibleLinear(), flows.FactorOut(flows.ActNorm())), event=(2, 4, 1)
    ),
}


def gmm(trainable: bool) -> Any:
    means, covariances = [[-1.0, 0.0], [1.0, 0.5]], [[[0.3, 0.1], [0.1, 0.4]], [[0.5, -0.2], [-0.2, 0.3]]]
    return flows.GMM(means, covariances, [0.3, 0.7], trainable=trainable)


trained = [
    flows.Normal(trainable=True),
    flows.Normal(trainable=True, covariance="full"),
    flows.Laplace(trainable=True),
    flows.Logistic(trainable=True),
    flows.StudentT(df=5.0, trainable=True),
]
still = [flows.Normal(), flows.Laplace(), flows.Logistic(), flows.StudentT(), flows.Uniform(-5.0, (5.0, 6.0))]
shapes = [
    flows.datasets.TwoMoons(noise=0.3),
    flows.datasets.Spirals(noise=0.4),
    flows.datasets.EightGaussians(radius=2.0),
    flows.Mixture(flows.datasets.Checkerboard(), flows.Normal()),  # as half of the plane is off the board
    flows.datasets.Rings(2, noise=0.3),
    flows.datasets.Pinwheel(3),
]
mixtures = [
    flows.Mixture(flows.Normal(trainable=True), flows.Laplace(), flows.Uniform(-5.0, 5.0)),
    flows.Mixture(flows.Normal(), flows.StudentT(3.0, True), weights=(0.2, 0.8), trainable=False),
    flows.Mixture(flows.Normal(trainable=True, covariance="full"), num_components=3),
    flows.Mixture(flows.Flow(flows.Coupling(net), flows.Laplace(trainable=True)), num_components=2),
    gmm(trainable=False),
    gmm(trainable=True),
    flows.Flow(flows.ActNorm(), flows.Flow(flows.Coupling(net), gmm(trainable=True))),
]
of_context = [
    flows.Normal(conditioner=net),
    flows.Normal(covariance="full", conditioner=Residual(6, blocks=1, batch_norm=True)),
    flows.Laplace(conditioner=net),
    flows.Logistic(conditioner=flows.MLP()),
    flows.StudentT(conditioner=net),
    flows.StandardizedContext(flows.Flow(flows.Coupling(net), flows.Normal(conditioner=net))),
    flows.Mixture(flows.Flow(flows.Coupling(net)), num_components=3),
    flows.Mixture(flows.Normal(conditioner=net), flows.Laplace(True), trainable=False),
    flows.MixtureMADE(2, hidden=(6,)),
    flows.Normal(trainable=True),
]


def joint(bases: list) -> Any:
    return flows.Joint(*bases, sizes=[2] * len(bases))


DISTRIBUTIONS = {
    "bases": Case(joint([*trained, *still]), event=2 * len([*trained, *still])),
    "data_sets": Case(joint(shapes), event=2 * len(shapes)),
    "mixtures": Case(joint(mixtures), event=2 * len(mixtures)),
    "bases_of_context": Case(joint(of_context), event=2 * len(of_context), context=3),
    "normal": Case(flows.Normal()),
    "normal_trainable": Case(flows.Normal(trainable=True), event=(2, 3)),
    "standardized_context": Case(flows.StandardizedContext(flows.Flow(flows.MAF(1, **few))), context=2),
    "flow_of_a_mixture": Case(flows.Flow(flows.RealNVP(2, **few), flows.Mixture(flows.Normal(True), num_components=2))),
}


def numbers(case: Case, rows: int, of: str, seed: int) -> np.ndarray:
    """Rows, or their contexts, in float32."""
    shape = {"x": case.event, "context": case.context}[of]
    rng = np.random.default_rng([seed, rows, of == "x"])
    x = rng.normal(size=(rows, *(shape if isinstance(shape, tuple) else (shape,))))
    x = case.spread * x if of == "x" else 1.0 + 2.0 * x
    return (1 / (1 + np.exp(-x)) if case.unit and of == "x" else x).astype(np.float32)


def trained_params(case: Case, seed: int) -> Any:
    """Params as training leaves them: each trained leaf is somewhere else, and statistics are those of data."""
    keywords = {"context_dim": case.context} if case.context else {}
    params = case.init_fun(seed, case.event, **keywords).params
    rng = np.random.default_rng(seed)

    def moved(leaf: Any, trains: bool) -> Any:
        noise = case.stir * rng.normal(size=leaf.shape)
        return leaf + jnp.asarray(noise, leaf.dtype) if trains else leaf

    params = jax.tree.map(moved, params, flows.trainable(params))
    context = {"context": numbers(case, 64, "context", seed)} if case.context else {}
    return flows.calibrate(case.init_fun, params, numbers(case, 64, "x", seed), **context)


def answers(triple: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model says of the rows, in their precision."""
    given = dict(given)
    x = given.pop("x")
    if isinstance(triple, flows.Distribution):
        return {"log_pdf": np.asarray(triple.log_pdf(triple.params, x, **given))}
    outputs, log_det = triple.direct_fun(triple.params, x, **given)
    return {"outputs": np.asarray(outputs), "log_det": np.asarray(log_det)}


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, relative beyond 1."""
    return float(np.max(np.abs(a - b) / (1 + np.abs(b))))


def in_float64(triple: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`answers`, computed in double precision from the same params."""
    with enable_x64():
        params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf).astype(np.float64)), triple.params)
        return answers(triple._replace(params=params), {name: each.astype(np.float64) for name, each in given.items()})


def write(folder: str, name: str, case: Case) -> dict[str, np.ndarray]:
    """One file, of the first seed with moderate numbers; returns its rows and what is expected of them."""
    path, metadata = os.path.join(folder, f"{name}.flows"), {"name": name, "columns": ["a", 1, 0.5, None, True]}
    for seed in range(SEEDS):
        flows.save(path, case.init_fun, trained_params(case, seed), case.event, case.context, metadata)
        triple = flows.load(path, constructors=OWN)
        given = {of: numbers(case, ROWS, of, seed) for of in ("x", *(["context"] if case.context else []))}
        expected, rounded = in_float64(triple, given), answers(triple, given)
        moderate = all(np.isfinite(each).all() and np.abs(each).max() < LARGEST for each in expected.values())
        if moderate and all(distance(rounded[key], each) <= FLOATS for key, each in expected.items()):
            return {**given, **expected}
    raise ValueError(f"{name}: none of {SEEDS} seeds gives numbers that float32 holds, at last {expected} against {rounded}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a new folder, such as tests/files/format_1; its name says the format of its files")
    parser.add_argument("--only", nargs="+", help="the names of the models to write; by default all")
    folder, only = vars(parser.parse_args()).values()
    os.mkdir(folder)  # which refuses one that exists: files once written stay
    cases, rows = {**MODELS, **LAYERS, **DISTRIBUTIONS}, {}
    for name, case in cases.items() if only is None else [(name, cases[name]) for name in only]:
        written = write(folder, name, case)
        rows |= {f"{name}/{key}": value for key, value in written.items()}
        print(name, *(f"{key} {np.round(each, 3).tolist()}" for key, each in written.items() if key[:4] == "log_"), flush=True)
    np.savez(os.path.join(folder, "rows.npz"), **rows)


if __name__ == "__main__":
    main()
