"""Every public bijection and distribution, with the events it is tested on. Adding one here is all its tests need."""

from typing import Any, NamedTuple

import numpy as np
from networks import SmallConv
from waves import shifted_wave, wave, wave_params

import flows
from flows import transformers as t
from flows.conditioners import ConcatSquash, ConvNet, ConvResidual, Lipschitz, MaskedMLP, MaskedResidual, Residual

small = flows.MLP(8, last_scale=1.0)
smooth = ConcatSquash(4, last_scale=1.0)
masked = MaskedMLP(8, last_scale=1.0)
contraction = Lipschitz(8, coefficient=0.8, activation="tanh", last_scale=1.0)
spline = t.LinearSpline(num_bins=3)  # the cheapest to compile of those with an odd number of parameters

halved = flows.Invert(flows.FixedAffine(2.0))  # its inverse is the native direction
ordered = MaskedResidual(6, num_blocks=1, last_scale=1.0, order=(2, 0, 1))
residual = Residual(6, num_blocks=1, last_scale=1.0)
kinds = (t.Affine(), spline, t.Additive(), t.Affine(), spline)
every_option = flows.Coupling(
    residual, kinds, mask=(True, False, True, False, False), flip=True, unconditional=spline, squash=5.0
)


class Case(NamedTuple):
    init_fun: Any
    events: tuple = (1, 2, 5)
    conditional: bool = False
    needs_context: bool = False
    domain: Any = (-float("inf"), float("inf"))  # of inputs
    volume_preserving: bool = False
    loose: bool = False  # a numerical inverse
    stir: float = 0.4  # how far trained params are moved from their start

    @property
    def one_column_of_context(self) -> int | None:
        """The event 1 where an engine's empty half must serve, with a context."""
        return 1 if self.init_fun.constructor in (flows.AffineCoupling, flows.Autoregressive, flows.MADE) else None


def image_scale(*rest):
    """One scale of a multi-scale flow for images."""
    step = [flows.ActNorm(), flows.InvertibleLinear(), flows.Coupling(SmallConv(), t.Affine())]
    return flows.Serial(flows.Squeeze(), *step, *rest)


def plain_scale(*rest):
    return flows.Serial(flows.Squeeze(), flows.ActNorm(), flows.InvertibleLinear(), *rest)


multi_scale = image_scale(flows.FactorOut(image_scale(flows.FactorOut(image_scale()))))
three_scales = image_scale(flows.FactorOut(plain_scale(flows.FactorOut(plain_scale()))))


class TransformerCase(NamedTuple):
    transformer: Any
    near: float = 1e-6  # how far theta = 0 may be from the identity, for x in [-4, 4]
    spread: float = 2.0  # of the random theta it is tested at
    tolerance: float = 1e-9  # of log-dets and round trips in float64


TRANSFORMERS: dict[str, TransformerCase] = {
    "Additive": TransformerCase(t.Additive()),
    "Affine": TransformerCase(t.Affine()),
    "Affine exp": TransformerCase(t.Affine(scale="exp")),
    "Affine sigmoid": TransformerCase(t.Affine(scale="sigmoid")),
    "Bernstein": TransformerCase(t.Bernstein(degree=6, bound=2.0)),
    "DeepSigmoidal": TransformerCase(t.DeepSigmoidal(num_units=3), near=0.3),
    "Gated": TransformerCase(t.Gated(), near=0.5),
    "Gaussianization": TransformerCase(t.Gaussianization(num_components=4), near=0.3, spread=1.0),
    "Inverse": TransformerCase(t.Inverse(t.Affine())),
    "MixtureCDF": TransformerCase(t.MixtureCDF(num_components=3), near=0.3, spread=1.0),
    "Moebius": TransformerCase(t.Moebius(num_centers=2)),
    "MonotonicNetwork": TransformerCase(t.MonotonicNetwork((4,), embedding=2)),
    "SumOfSquares": TransformerCase(t.SumOfSquares(degree=2)),
    "CircularRationalQuadratic": TransformerCase(t.CircularRationalQuadratic(num_bins=4, bound=2.0)),
    "CubicSpline": TransformerCase(t.CubicSpline(num_bins=4, bound=2.0)),
    "LinearSpline": TransformerCase(t.LinearSpline(num_bins=4, bound=2.0)),
    "LinearRational": TransformerCase(t.LinearRational(num_bins=4, bound=2.0)),
    "QuadraticSpline": TransformerCase(t.QuadraticSpline(num_bins=4, bound=2.0)),
    "RationalQuadratic": TransformerCase(t.RationalQuadratic(num_bins=4, bound=2.0)),
    "RationalQuadratic, free ends": TransformerCase(t.RationalQuadratic(num_bins=4, bound=2.0, ends="free")),
}


free_ends = t.RationalQuadratic(3, bound=1.0, ends="free")
on_cylinder = flows.Cylinder().own_support.outputs
box_of_four = flows.Unconstrain(low=(0.0, -1.0, -np.inf, -np.inf), high=(np.inf, 1.5, 3.0, np.inf))

BIJECTIONS: dict[str, Case] = {
    "ActNorm": Case(flows.ActNorm(), (1, 2, 5, (2, 2, 3))),
    "AffineCoupling": Case(flows.AffineCoupling(small), conditional=True),
    "AffineCouplingSplit": Case(flows.AffineCouplingSplit(small, small), conditional=True),
    "Arcsinh": Case(flows.Arcsinh((0, 1)), (2, 5), stir=0.0),
    "Arcsinh, together": Case(flows.Arcsinh((0, 1), together=True), (2, 5), stir=0.0),
    "NormalScores": Case(flows.NormalScores(5, (0, 1)), (2, 5), volume_preserving=True),
    "Autoregressive": Case(flows.Autoregressive(masked), (1, 3), conditional=True),
    "Autoregressive, every option": Case(
        flows.Autoregressive(ordered, spline, random_order=True, squash=5.0), (3,), conditional=True
    ),
    "Autoregressive of kinds": Case(flows.Autoregressive(masked, (t.Affine(), spline, t.Additive(), t.Affine())), (4,)),
    "BatchNorm": Case(flows.BatchNorm(), (1, 2, 5, (2, 2, 3))),
    "Continuous": Case(flows.Continuous(smooth, solver="rk4", steps=60), (2,), conditional=True, loose=True, stir=0.6),
    "Coupling": Case(flows.Coupling(small, spline), (2,), conditional=True),
    "Coupling flipped": Case(flows.Coupling(small, flip=True), (2, 5), conditional=True),
    "Coupling of images": Case(flows.Coupling(SmallConv(), t.Affine()), ((2, 2, 3),), conditional=True),
    "Coupling of pixels": Case(
        flows.Coupling(SmallConv(), t.Affine(), mask="checkerboard"), ((3, 2, 1), (2, 2, 2)), conditional=True
    ),
    "Coupling of pixels of kinds": Case(
        flows.Coupling(SmallConv(), (t.Moebius(1), spline), mask="checkerboard", flip=True), ((1, 3, 2), (2, 2, 2))
    ),
    "Coupling of images, by the network of Glow": Case(
        flows.Coupling(ConvNet(4, last_scale=1.0)), ((4, 2, 2), (2, 2, 3)), conditional=True
    ),
    "Coupling of images, by a residual network": Case(
        flows.Coupling(ConvResidual(4, 1, last_scale=1.0, norm="weight"), flip=True), ((4, 2, 2), (2, 2, 3)), conditional=True
    ),
    "NICEImage": Case(flows.NICEImage(3, (6,)), ((2, 2, 2), (3, 2, 1)), conditional=True),
    "RealNVPImage": Case(flows.RealNVPImage(1, 4, 1, norm="both"), ((2, 4, 1), (4, 2, 1)), conditional=True),
    "FlowPlusPlus": Case(flows.FlowPlusPlus(4, 1, 2, 2, (1, 1, 1), 0.0), ((2, 4, 1),), loose=True, stir=0.1),
    "GlowImage": Case(flows.GlowImage(1, 4, reversible=True), ((4, 4, 1), (4, 4, 2)), conditional=True, stir=0.1),
    "NSFImage": Case(
        flows.NSFImage(1, 4, 1, num_bins=2, bound=9.0, reversible=True), ((4, 4, 1), (4, 4, 2)), conditional=True, stir=0.1
    ),
    "Coupling, every option": Case(every_option, (5,), conditional=True),
    "Coupling of angles": Case(flows.Coupling(small, t.Moebius(1), unconditional=t.Moebius(1)), (3,), conditional=True),
    "Autoregressive of angles": Case(flows.Autoregressive(masked, (t.Moebius(1), t.Affine())), (2,), conditional=True),
    "Checkerboard": Case(flows.Checkerboard(), ((3, 2, 1), (2, 4, 3)), volume_preserving=True),
    "Cylinder": Case(flows.Cylinder(), (4,), domain=flows.SPHERE),
    "Cylinder of the sphere in space": Case(flows.Invert(flows.Cylinder()), (3,), domain=on_cylinder, volume_preserving=True),
    "Coupling of random halves": Case(
        flows.Coupling(small, t.MonotonicNetwork((4,), embedding=2), mask="random"), (3,), loose=True
    ),
    "BlockAutoregressive": Case(flows.BlockAutoregressive(3), (1, 3), conditional=True),
    "Elementwise": Case(flows.Elementwise(spline), (2, (2, 2, 3))),
    "Elementwise of context": Case(flows.Elementwise(t.Affine(), small), (2,), conditional=True, needs_context=True),
    "Exp": Case(flows.Exp(), (2,)),
    "FactorOut": Case(flows.FactorOut(flows.ActNorm(), flows.InvertibleLinear(), halved), (2, 5, (2, 2, 3))),
    "FixedAffine": Case(flows.FixedAffine((-2.0, 0.5, 3.0), 0.5), (3, (2, 2, 3))),
    "FixedInvertibleLinear": Case(flows.FixedInvertibleLinear(), (1, 2, 5, (2, 2, 3)), volume_preserving=True),
    "FromFunction": Case(flows.FromFunction(wave, wave_params), (1, 3), loose=True),
    "FromFunction of context": Case(
        flows.FromFunction(shifted_wave, wave_params), (2,), conditional=True, needs_context=True, loose=True
    ),
    "Householder": Case(flows.Householder(2), (5, (2, 2, 3)), volume_preserving=True),
    "InverseAutoregressive": Case(flows.InverseAutoregressive(masked), (1, 3), conditional=True, stir=-1.0),
    "Invert": Case(flows.Invert(flows.AffineCoupling(small)), conditional=True),
    "Invert of MADE": Case(flows.Invert(flows.MADE(masked)), (1, 3), conditional=True),
    "InvertibleLinear": Case(flows.InvertibleLinear(), (1, 2, 3, (2, 2, 5))),  # 5: of 3, most permutations undo themselves
    "LeakyReLU": Case(flows.LeakyReLU(0.1), (2,)),
    "ConditionalCoupling": Case(flows.ConditionalCoupling(flows.RealNVP(2, hidden=(4,)), 1), (2, 3), conditional=True),
    "InvertibleLinear from the identity": Case(flows.InvertibleLinear(init="identity"), (3,)),
    "LinearExponential": Case(flows.LinearExponential(), (1, 3, (2, 2, 3))),
    "LinearLowRank": Case(flows.LinearLowRank(2), (3, (2, 2, 5))),
    "LinearQR": Case(flows.LinearQR(), (1, 2, 3, (2, 2, 3))),
    "LinearSVD": Case(flows.LinearSVD(), (1, 2, 3, (2, 2, 3))),
    "LogisticCDF": Case(flows.LogisticCDF(0.5, 2.0), (2,)),
    "Logit": Case(flows.Logit(), (1, 2, 5), domain=(0.0, 1.0)),
    "Logit unclipped": Case(flows.Logit(clip_before_logit=False), (2,), domain=(0.0, 1.0)),
    "MADE": Case(flows.MADE(masked), (1, 3), conditional=True),
    "MADE of two networks": Case(flows.MADE(masked, masked), (1, 3), conditional=True),
    "NeuralSplineCoupling": Case(flows.NeuralSplineCoupling(K=2), (1, 3)),
    "Noise": Case(flows.Noise(0.5), (2, (1, 2, 1)), volume_preserving=True),
    "NormalCDF": Case(flows.NormalCDF(0.5, 2.0), (2,)),
    "Patchify": Case(flows.Patchify(2), ((2, 4, 1), (4, 2, 3)), volume_preserving=True),
    "Permute": Case(flows.Permute((1, 2, 0)), (3, (2, 2, 3)), volume_preserving=True),
    "Planar": Case(flows.Planar(), (1, 3), loose=True, stir=1.0),
    "Planar of context": Case(flows.Planar(small), (3,), conditional=True, needs_context=True, loose=True),
    "Power": Case(flows.Power(1.5), (2,), domain=flows.Power(1.5).own_support.inputs),
    "Power below 0": Case(flows.Power(-2), (2,), domain=flows.Power(-2).own_support.inputs),
    "Radial": Case(flows.Radial(), (1, 3), stir=1.0),
    "Radial of context": Case(flows.Radial(small), (3,), conditional=True, needs_context=True),
    "Repeat": Case(flows.Repeat(flows.Serial(flows.AffineCoupling(small), flows.Reverse()), 3), (1, 3), conditional=True),
    "Repeat reversible": Case(
        flows.Repeat(flows.Serial(flows.ActNorm(), flows.Coupling(small)), 2, reversible=True), (2, 3), conditional=True
    ),
    "Reversible": Case(flows.Reversible(flows.Coupling(small), flows.InvertibleLinear()), (2, 3), conditional=True),
    "Repeat of Invert": Case(flows.Repeat(flows.Invert(flows.MADE(masked)), 2), (3,), conditional=True),
    "ResidualBlock": Case(flows.ResidualBlock(contraction, "unbiased"), (1,), loose=True, stir=1.0),
    "ResidualBlock of context": Case(flows.ResidualBlock(contraction), (2,), conditional=True, loose=True),
    "ResidualBlock of many features": Case(flows.ResidualBlock(contraction), (20,), loose=True, stir=1.0),
    "RandomFlip": Case(flows.RandomFlip(), ((1, 2, 1), (2, 3, 2)), volume_preserving=True),
    "Reshape": Case(flows.Reshape((2, 6)), (12, (2, 2, 3)), volume_preserving=True),
    "Reverse": Case(flows.Reverse(), (1, 2, 5, (2, 2, 3)), volume_preserving=True),
    "Reverse of rows": Case(flows.Reverse(axis=0), ((3, 2), (3, 2, 2)), volume_preserving=True),
    "Rotation": Case(flows.Rotation(), (2,), volume_preserving=True),
    "Scale": Case(flows.Scale(), (1, (2, 2, 3))),
    "Serial": Case(
        flows.Serial(flows.ActNorm(), flows.AffineCoupling(small), halved, flows.Sigmoid()), (1, 3), conditional=True
    ),
    "Serial of three scales": Case(three_scales, ((8, 8, 1),), stir=0.03),
    "Shuffle": Case(flows.Shuffle(), (1, 3, (2, 2, 5)), volume_preserving=True),
    "Sigmoid": Case(flows.Sigmoid()),
    "Softplus": Case(flows.Softplus(), (2,)),
    "SphereCoupling": Case(
        flows.SphereCoupling(small, t.CircularRationalQuadratic(3), free_ends), (4,), conditional=True, domain=flows.SPHERE
    ),
    "ActNorm per entry": Case(flows.ActNorm(per="entry"), (3, (2, 2, 2))),
    "InvertibleLinear dense": Case(flows.InvertibleLinear(dense=True), (3, (2, 2, 2))),
    "InvertibleLinear in groups": Case(flows.InvertibleLinear(dense=True, groups=2), (4, (2, 2, 6))),
    "Squeeze": Case(flows.Squeeze(), ((2, 4, 3), (4, 2, 1)), volume_preserving=True),
    "Standardize": Case(flows.Standardize(), (1, 2, 5, (2, 2, 3)), volume_preserving=True),
    "Stripes of rows": Case(flows.Stripes(axis=0), ((2, 3, 1), (4, 2, 2)), volume_preserving=True),
    "Stripes of columns": Case(flows.Stripes(axis=1), ((3, 2, 1), (2, 4, 2)), volume_preserving=True),
    "Sylvester": Case(flows.Sylvester(2), (3,), loose=True, stir=1.0),
    "Sylvester of context": Case(
        flows.Sylvester(3, "householder", small), (3,), conditional=True, needs_context=True, loose=True
    ),
    "Sylvester triangular": Case(flows.Sylvester(2, "triangular"), (2,), loose=True, stir=1.0),
    "Tanh": Case(flows.Tanh(), (2,)),
    "Through": Case(
        flows.Through(flows.Checkerboard(), flows.ActNorm(), flows.Coupling(SmallConv())),
        ((1, 2, 1), (2, 2, 1)),
        conditional=True,
    ),
    "Through a map": Case(flows.Through(flows.Sigmoid(), flows.Power(1.5)), (2, (2, 1, 2))),
    "Triangular": Case(flows.Triangular(), (1, 3, (2, 2, 3))),
    "Triangular upper": Case(flows.Triangular(lower=False), (3,)),
    "Unconstrain": Case(box_of_four, (4,), domain=box_of_four.own_support.inputs),
    "Whiten": Case(flows.Whiten(), (1, 2, 5), volume_preserving=True),
}

# Compositions of the layers above, which test_models.py tests as a whole.
MODELS: dict[str, Any] = {
    "BNAF": flows.BNAF(2, hidden=(2,)),
    "FFJORD": flows.FFJORD(1, hidden=(4,), solver="rk4", steps=60),
    "GaussianizationFlow": flows.GaussianizationFlow(1, num_components=2),
    "Glow": flows.Glow(2, hidden=(8,)),
    "IAF": flows.IAF(2, hidden=(8,)),
    "IAF plain": flows.IAF(2, hidden=(8,), plain=True),
    "IResNet": flows.IResNet(1, hidden=(8,)),
    "MAF": flows.MAF(2, hidden=(8,)),
    "NAF": flows.NAF(2, hidden=(8,), num_units=2),
    "NICE": flows.NICE(2, hidden=(8,)),
    "NSF": flows.NSF(2, hidden=(8,), num_bins=2),
    "NSF coupling, linear maps": flows.NSF(1, hidden=(8,), num_bins=2, autoregressive=False, linear=True),
    "NSF plain, in a loop": flows.NSF(
        2, hidden=(8,), num_bins=3, spline="quadratic", autoregressive=False, plain=True, scan=True
    ),
    "RealNVP": flows.RealNVP(2, hidden=(8,)),
    "RNODE": flows.RNODE(2, hidden=(3,), steps=60, scan=True),
    "ResidualFlow": flows.ResidualFlow(2, hidden=(8,), scan=True),
    "SphereFlow": flows.SphereFlow(2, hidden=(8,), num_bins=2),
    "SOS": flows.SOS(2, hidden=(8,), num_polynomials=2, degree=1),
    "UMNN": flows.UMNN(2, hidden=(8,), integrand=(4,), embedding=2, num_nodes=20),
}


class DistributionCase(NamedTuple):
    init_fun: Any
    events: tuple = (1, 2)
    conditional: bool = False
    needs_context: bool = False
    reach: float = 9.0  # of the grid that must hold its density


def mixture(trainable):
    means, covariances = np.array([[-1.0, 0.0], [1.0, 0.5]]), np.array([[[0.3, 0.1], [0.1, 0.4]], [[0.5, -0.2], [-0.2, 0.3]]])
    return flows.GMM(means, covariances, [0.3, 0.7], trainable=trainable)


gentle = flows.Coupling(flows.MLP(4, activation="tanh", last_scale=0.3), t.Affine())  # so that a grid holds the density

network = flows.MLP(4, activation="tanh", last_scale=0.3)
box = flows.Uniform(-1.0125, 2.0025)  # whose faces lie midway between the points of the grid

DISTRIBUTIONS: dict[str, DistributionCase] = {
    "Flow": DistributionCase(flows.Flow(gentle), conditional=True),
    "EmbeddedContext": DistributionCase(
        flows.EmbeddedContext(flows.Normal(conditioner=network), flows.MLP(4), 3), (2,), needs_context=True
    ),
    "Flow of a flow": DistributionCase(
        flows.Flow(gentle, flows.Flow(flows.ActNorm(), flows.Normal(trainable=True))), conditional=True
    ),
    "Flow of a mixture": DistributionCase(
        flows.Flow(flows.ActNorm(), flows.Mixture(flows.Normal(), flows.Laplace(True), weights=(0.2, 0.8), trainable=False)),
        (1,),
    ),
    "GMM": DistributionCase(mixture(trainable=False), (2,)),
    "GMM trainable": DistributionCase(mixture(trainable=True), (2,)),
    "datasets.Checkerboard": DistributionCase(flows.datasets.Checkerboard(), (2,), reach=2.0),
    "datasets.EightGaussians": DistributionCase(flows.datasets.EightGaussians(), (2,)),
    "datasets.Picture": DistributionCase(flows.datasets.Picture(2, 3, (-1.505, -1.005), 0.995), (2,), reach=2.0),
    "datasets.Pinwheel": DistributionCase(flows.datasets.Pinwheel(3), (2,), reach=6.0),
    "datasets.Rings": DistributionCase(flows.datasets.Rings(2, noise=0.2), (2,), reach=4.0),
    "datasets.Spirals": DistributionCase(flows.datasets.Spirals(noise=0.4), (2,), reach=6.0),
    "datasets.TwoMoons": DistributionCase(flows.datasets.TwoMoons(noise=0.2), (2,), reach=4.0),
    "Joint": DistributionCase(flows.Joint(flows.Normal(conditioner=network), box), (2,), needs_context=True),
    "ChainRule": DistributionCase(
        flows.ChainRule(flows.Normal(trainable=True), flows.Normal(conditioner=network)), (2,), conditional=True
    ),
    "AnySubset": DistributionCase(flows.AnySubset(hidden=(4,), num_bins=2), (2,)),
    "Conditional": DistributionCase(flows.Conditional(flows.AnySubset(hidden=(4,), num_bins=2), 3, (2, 0), (1,)), (2,)),
    "GMM to fit": DistributionCase(flows.GMM(num_components=3, covariance="diagonal"), (1, 2)),
    "KernelDensity": DistributionCase(flows.KernelDensity(5), (1, 2)),
    "Laplace": DistributionCase(flows.Laplace(), (1,)),
    "Laplace trainable": DistributionCase(flows.Laplace(trainable=True)),
    "Logistic": DistributionCase(flows.Logistic(conditioner=network), needs_context=True, reach=30.0),
    "Mixture": DistributionCase(flows.Mixture(flows.Normal(trainable=True), box)),
    "Mixture of copies": DistributionCase(flows.Mixture(flows.Flow(gentle), num_components=3), (2,), conditional=True),
    "MixtureMADE": DistributionCase(flows.MixtureMADE(2, hidden=(4,)), (2,), conditional=True),
    "Normal": DistributionCase(flows.Normal()),
    "Normal conditional": DistributionCase(flows.Normal(covariance="full", conditioner=network), needs_context=True),
    "Normal full": DistributionCase(flows.Normal(trainable=True, covariance="full"), (2,)),
    "Normal trainable": DistributionCase(flows.Normal(trainable=True)),
    "StandardizedContext": DistributionCase(
        flows.StandardizedContext(flows.Normal(conditioner=network)), (2,), needs_context=True
    ),
    "StudentT": DistributionCase(flows.StudentT(df=5.0, trainable=True), (2,), reach=30.0),
    "Uniform": DistributionCase(box),
}


class DirectionalCase(NamedTuple):
    """A distribution on circles, if the event is a number of them, or on a sphere."""

    init_fun: Any
    event: int
    needs_context: bool = False
    conditional: bool = False

    @property
    def events(self) -> tuple:
        return (self.event,)

    @property
    def on_sphere(self) -> bool:
        return bool(self._region.sphere.any())

    @property
    def radian(self) -> float:
        """In the units of its angles."""
        return 1.0 if self.on_sphere else float(np.max(self._region.period)) / (2 * np.pi)

    @property
    def _region(self) -> Any:
        return flows.support(self.init_fun, self.event, 2 * self.needs_context).inputs


torus = flows.Serial(flows.Rotation(), flows.Coupling(small, t.CircularRationalQuadratic(3)), flows.Reverse())
DIRECTIONAL: dict[str, DirectionalCase] = {
    "CircularUniform": DirectionalCase(flows.CircularUniform(), 2),
    "VonMises": DirectionalCase(flows.VonMises((0.5, 3.0), 2.0), 2),
    "VonMises trainable": DirectionalCase(flows.VonMises(concentration=3.0, trainable=True, period=24.0), 1),
    "VonMises conditional": DirectionalCase(flows.VonMises(conditioner=network), 1, needs_context=True),
    "SphereUniform": DirectionalCase(flows.SphereUniform(), 3),
    "VonMisesFisher": DirectionalCase(flows.VonMisesFisher((1.0, 0.0, 2.0), 4.0), 3),
    "VonMisesFisher trainable": DirectionalCase(flows.VonMisesFisher(trainable=True), 3),
    "VonMisesFisher conditional": DirectionalCase(flows.VonMisesFisher(conditioner=network), 3, needs_context=True),
    "VonMisesFisher of a circle": DirectionalCase(flows.VonMisesFisher((1.0, 1.0), 3.0), 2),
    "Mixture on the sphere": DirectionalCase(flows.Mixture(flows.VonMisesFisher(trainable=True), num_components=2), 3),
    "ChainRule on the torus": DirectionalCase(
        flows.ChainRule(flows.VonMises(trainable=True, period=24.0), flows.VonMises(conditioner=network, period=24.0)), 2
    ),
    "Flow on the torus": DirectionalCase(flows.Flow(torus, flows.CircularUniform()), 2),
    "Flow on the sphere": DirectionalCase(flows.Flow(flows.SphereFlow(2, hidden=(8,), num_bins=3), flows.SphereUniform()), 3),
}


class CodesCase(NamedTuple):
    """A distribution some of whose entries are codes, in `classes`; those of 0 classes are numbers."""

    init_fun: Any
    classes: tuple[int, ...]
    conditional: bool = False

    @property
    def events(self) -> tuple:
        return (len(self.classes),)


shifted = flows.Coupling(flows.MLP(4, last_scale=0.5), flows.transformers.Integer(3))
# The columns of more classes come first, last and in between, so that none is where the computation has it.
CODES: dict[str, CodesCase] = {
    "Categorical": CodesCase(flows.Categorical(3, 2, 4, 2, hidden=(8, 6)), (3, 2, 4, 2), conditional=True),
    "Categorical of one column": CodesCase(flows.Categorical(5, hidden=(8,)), (5,), conditional=True),
    "Categorical linear": CodesCase(flows.Categorical(2, 5, 3, hidden=()), (2, 5, 3), conditional=True),
    "AnySubset of codes": CodesCase(
        flows.AnySubset(flows.conditionals.Category(3), flows.conditionals.Category(2), hidden=(4,)), (3, 2)
    ),
    "Mixture of Categorical": CodesCase(
        flows.Mixture(flows.Categorical(3, 2, hidden=(4,)), num_components=2), (3, 2), conditional=True
    ),
    "Joint of Categorical": CodesCase(
        flows.Joint(flows.Normal(trainable=True), flows.Categorical(2, 3, hidden=(4,)), sizes=(1, 2)),
        (0, 2, 3),
        conditional=True,
    ),
    "DiscretizedLogistic": CodesCase(flows.DiscretizedLogistic(True, low=0, high=3), (4, 4)),
    "Integer": CodesCase(flows.Flow(shifted, flows.DiscretizedLogistic(True, low=0, high=2)), (3, 3, 3), conditional=True),
    "Flow of codes": CodesCase(flows.Flow(flows.Reverse(), flows.Categorical(3, 3, hidden=(4,), dropout=0.5)), (3, 3)),
}
