"""Flows for vectors: RealNVP, masked autoregressive flow, neural spline flow."""

from collections.abc import Callable

from flows.bijections import MADE, ActNorm, Autoregressive, Coupling, InvertibleLinear, Reverse
from flows.compose import Serial
from flows.conditioners import MLP, MaskedMLP
from flows.core import bijection, check_widths, positive_int
from flows.transformers import Affine, RationalQuadratic


@bijection
def RealNVP(num_layers: int = 8, hidden: tuple[int, ...] = (64, 64), activation: str | Callable = "relu"):
    """Affine couplings with the features reversed in between, each followed by an activation normalisation.

    y = f_n(... f_1(x)); each layer is y2 = x2 exp(s(x1)) + t(x1) on half of the features; log|det J| = the sum of all s.

    Args:
        num_layers: couplings.
        hidden: widths of each network.
        activation: as in `MLP`.

    Params:
        A tuple over layers.

    Errors:
        FlowsError: num_layers is not a whole number above 0, or hidden no sequence of widths.

    Source:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, arXiv:1605.08803; ActNorm in place of
        batch normalisation, after Kingma and Dhariwal, "Glow", 2018, arXiv:1807.03039.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.RealNVP(4))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    num_layers = positive_int(num_layers, "RealNVP: num_layers", most=10_000)
    hidden = check_widths(hidden, "RealNVP: hidden")
    step = [ActNorm(), Coupling(MLP(*hidden, activation=activation), Affine()), Reverse()]
    return Serial(*step * num_layers)


@bijection
def MAF(num_layers: int = 5, hidden: tuple[int, ...] = (64, 64), activation: str | Callable = "relu"):
    """A masked autoregressive flow: MADE layers with the order reversed in between.

    y_i = (x_i - b_i(x_<i)) exp(-w_i(x_<i)) in each layer; log|det J| = minus the sum of all w. Densities take one pass;
    samples are found feature by feature.

    Args:
        num_layers: autoregressive layers.
        hidden: widths of each masked network.
        activation: as in `MLP`.

    Params:
        A tuple over layers.

    Errors:
        FlowsError: num_layers is not a whole number above 0, or hidden no sequence of widths.

    Source:
        Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", 2017, arXiv:1705.07057;
        ActNorm in place of batch normalisation, after Kingma and Dhariwal, "Glow", 2018, arXiv:1807.03039.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.MAF(3))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    num_layers = positive_int(num_layers, "MAF: num_layers", most=10_000)
    hidden = check_widths(hidden, "MAF: hidden")
    return Serial(*[ActNorm(), MADE(MaskedMLP(*hidden, activation=activation)), Reverse()] * num_layers)


@bijection
def NSF(
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    activation: str | Callable = "relu",
    num_bins: int = 8,
    bound: float = 3.0,
    autoregressive: bool = False,
):
    """A neural spline flow: rational-quadratic splines with linear maps in between, in LU form.

    y = f_n(... f_1(x)); each layer is y = spline(x W), the spline of one feature set by the others; log|det J| = the sum of
    log|det W| and the log-slopes. Data should be standardised: the splines act on [-bound, bound] (`flows.fit` does).

    Args:
        num_layers: pairs of a linear map and a spline layer; a last linear map follows.
        hidden: widths of each network.
        activation: as in `MLP`.
        num_bins: bins of each spline.
        bound: the splines' half-width.
        autoregressive: masked networks, so that each feature sees all before it; samples are then found feature by feature.

    Params:
        A tuple over layers.

    Errors:
        FlowsError: an argument is outside its range; an event of several axes.

    Source:
        Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, section 3.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.NSF(2, num_bins=4))(0, 3)
        >>> sample(1, params, 3).shape
        (3, 3)
    """
    num_layers = positive_int(num_layers, "NSF: num_layers", most=10_000)
    hidden = check_widths(hidden, "NSF: hidden")
    spline = RationalQuadratic(num_bins=num_bins, bound=bound)
    if autoregressive:
        layer = Autoregressive(MaskedMLP(*hidden, activation=activation), spline)
    else:
        layer = Coupling(MLP(*hidden, activation=activation), spline)
    return Serial(*[InvertibleLinear(), layer] * num_layers, InvertibleLinear())
