"""Every layer, transformer and network, in files that later versions have to load."""

from files.own import Adapted, Case, Convolution, Kept, Original, Wave, tiny

import flows
from flows import transformers as t
from flows.conditioners import MaskedMLP, MaskedResidual, Residual

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
    t.CircularRationalQuadratic(num_bins=3, line=True),
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
