"""Coupling flows: NICE, RealNVP and Glow, with additive and affine transformers, and SphereFlow. Family: Couplings."""

from flows.bijections.coupling import Coupling
from flows.bijections.linear import Householder, InvertibleLinear
from flows.bijections.scaling import ActNorm, BatchNorm, Scale
from flows.bijections.sphere import SphereCoupling
from flows.conditioners import MLP
from flows.conditioners.network import Squash
from flows.core import bijection
from flows.models.stack import LOG_SCALE, SQUASH, UNROLLED_AFFINE, Activation, check_hidden, stack
from flows.transformers import Additive, Affine, CircularRationalQuadratic, RationalQuadratic


@bijection
def NICE(
    num_layers: int = 4,
    hidden: tuple[int, ...] = (128, 128),
    activation: Activation = "relu",
    plain: bool = False,
    scan: bool | None = None,
):
    """Additive couplings in which the halves alternate, then a scale for each feature.

    y = s f_n(... f_1(x)); each layer is y2 = x2 + t(x1), the next y1 = x1 + t(x2); log|det J| = sum(log s). Halves are
    the first and the last features (in the paper the even and the odd ones, of images). The base of the paper is logistic:
    `flows.Flow(flows.NICE(), flows.Logistic())`.

    Args:
        num_layers: couplings.
        hidden: widths of each network.
        activation: as in `MLP`.
        plain: without the scale at the end; the volume is then preserved.
        scan: one compiled loop (`Repeat`) over pairs of layers, which compiles in the time of one; an odd layer follows it.
            By default beyond 4 layers, where it is faster too.

    Params:
        A tuple over layers, of the loop first, if there is one: there the params of a pair, stacked.

    Cost:
        Direct: a pass of each network. Inverse: the same.

    Errors:
        FlowsError: an argument is outside its range; an event or a context of several axes.

    Source:
        Dinh, Krueger and Bengio, "NICE: Non-linear Independent Components Estimation", 2014, arXiv:1410.8516, section 3.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.NICE(hidden=(16,)), flows.Logistic())(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    net = MLP(*check_hidden(hidden, "NICE"), activation=activation)
    layer, flipped = (Coupling(net, Additive(), flip=flip) for flip in (False, True))
    return stack("NICE", [layer], num_layers, scan, [] if plain else [Scale()], [flipped], UNROLLED_AFFINE)


@bijection
def RealNVP(
    num_layers: int = 8,
    hidden: tuple[int, ...] = (128, 128),
    activation: Activation = "relu",
    plain: bool = False,
    dropout: float = 0.0,
    squash: Squash = SQUASH,
    scan: bool | None = None,
):
    """Affine couplings in which the halves alternate, each followed by batch normalisation.

    y = f_n(... f_1(x)); each layer is y2 = x2 exp(s(x1)) + t(x1), the next the same with the halves exchanged, |s| < 2;
    log|det J| = the sum of all s and of the normalisations' log-dets. One network makes s and t (the MAF paper has two, one of
    tanh units and one of ReLU units). In one column without a context y is affine in x, so the density
    stays Gaussian; give `NSF`. Train with `train=True`, so that batches are normalised by their statistics, and
    `flows.remeasure` before use (`flows.fit` does both); or leave the statistics as `init_inputs` set them.

    Args:
        num_layers: couplings.
        hidden, activation, scan: as in `NICE`.
        plain: without batch normalisation.
        dropout: the share of hidden units dropped while `train=True`, which then needs `rng`.
        squash: how far out the networks see their inputs as they are, as in `Coupling`; None for as far as they go.

    Params:
        As in `NICE`.

    Cost:
        Direct: a pass of each network. Inverse: the same.

    Errors:
        FlowsError: an argument is outside its range; an event or a context of several axes.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803; for vectors as in
        Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", 2017, arXiv:1705.07057.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.RealNVP(4, hidden=(16,)))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    net = MLP(*check_hidden(hidden, "RealNVP"), activation=activation, dropout=dropout)
    normalised = [] if plain else [BatchNorm()]
    step, flipped = ([Coupling(net, Affine(LOG_SCALE), flip=flip, squash=squash), *normalised] for flip in (False, True))
    return stack("RealNVP", step, num_layers, scan, [], flipped, UNROLLED_AFFINE)


@bijection
def Glow(
    num_layers: int = 8,
    hidden: tuple[int, ...] = (128, 128),
    activation: Activation = "relu",
    plain: bool = False,
    scan: bool | None = None,
):
    """The step of Glow for vectors: activation normalisation, an invertible linear map, an affine coupling.

    y = f_n(... f_1(x)); each step is z = ((x - m) exp(a)) W, y2 = z2 s(z1) + t(z1) on half of the features, with
    s = sigmoid(r + 2) but for a factor (`Affine(scale="sigmoid")`); log|det J| = the sum of all a, log|det W| and log s.

    Args:
        num_layers: steps.
        hidden, activation: as in `NICE`.
        scan: as in `NICE`, but over single steps.
        plain: without activation normalisation.

    Params:
        A tuple over layers; params of a loop are stacked. The normalisation is set by `init_inputs`.

    Cost:
        Direct: a pass of each network. Inverse: the same.

    Errors:
        FlowsError: an argument is outside its range; an event or a context of several axes.

    Source:
        Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018, arXiv:1807.03039, section 3.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.Glow(4, hidden=(16,)))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    layer = Coupling(MLP(*check_hidden(hidden, "Glow"), activation=activation), Affine(scale="sigmoid"))
    step = [*([] if plain else [ActNorm()]), InvertibleLinear(), layer]
    return stack("Glow", step, num_layers, scan, unrolled=UNROLLED_AFFINE)


@bijection
def SphereFlow(
    num_layers: int = 10,
    hidden: tuple[int, ...] = (64, 64),
    activation: Activation = "gelu",
    num_bins: int = 16,
    scan: bool | None = None,
):
    """Sphere couplings with a trained rotation between two of them: of unit vectors (n + 1,), on S^2 or higher.

    Each coupling maps heights by splines of [-1, 1] and the longitude by a circular spline whose knots a network makes of the
    heights; a product of two reflections turns the axis before the next. log|det J|, per unit of surface, is the sum of the
    couplings'. The base is `SphereUniform()`. Latitudes and longitudes in degrees become points by `flows.from_degrees`.

    The defaults are for thousands of rows with fine structure, such as places on a map, at the rate of `flows.fit` as it is
    (`benchmarks/spheres.py`). Four layers of 8 bins take half the time, and are better on a few hundred rows.

    Args:
        num_layers: couplings.
        hidden: widths of each network.
        activation: as in `MLP`.
        num_bins: of each spline.
        scan: one compiled loop (`Repeat`) over the layers, by default beyond 3.

    Params:
        A tuple over layers; for a loop the params of its layers, stacked.

    Cost:
        Direct: a pass of each network. Inverse: the same.

    Errors:
        FlowsError: an argument is outside its range; an event of less than three entries.

    Source:
        Rezende, Papamakarios, Racanière, Albergo, Kanwar, Shanahan and Cranmer, "Normalizing Flows on Tori and Spheres", 2020,
        arXiv:2002.02428, the recursive flow.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.SphereFlow(2, hidden=(8,)), flows.SphereUniform())(0, 3)
        >>> sample(1, params, 4).shape
        (4, 3)
    """
    net = MLP(*check_hidden(hidden, "SphereFlow"), activation=activation)
    circle, interval = CircularRationalQuadratic(num_bins), RationalQuadratic(num_bins, bound=1.0, ends="free")
    return stack("SphereFlow", [Householder(2), SphereCoupling(net, circle, interval)], num_layers, scan)
