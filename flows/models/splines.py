"""Neural spline flows, coupling and autoregressive, with any of the splines."""

from flows.bijections.autoregressive import Autoregressive
from flows.bijections.coupling import Coupling
from flows.bijections.linear import InvertibleLinear
from flows.bijections.permutation import Reverse
from flows.conditioners import MLP, MaskedMLP, MaskedResidual, Residual
from flows.core import FlowsError, bijection
from flows.models.stack import Activation, check_hidden, stack
from flows.transformers import CubicSpline, LinearRational, LinearSpline, QuadraticSpline, RationalQuadratic

SPLINES = {
    "rational_quadratic": RationalQuadratic,
    "quadratic": QuadraticSpline,
    "cubic": CubicSpline,
    "linear": LinearSpline,
    "linear_rational": LinearRational,
}


@bijection
def NSF(
    num_layers: int = 5,
    hidden: tuple[int, ...] = (128, 128),
    activation: Activation = "relu",
    num_bins: int = 8,
    bound: float = 3.0,
    autoregressive: bool = False,
    spline: str = "rational_quadratic",
    dropout: float = 0.0,
    plain: bool = False,
    scan: bool | None = None,
):
    """A neural spline flow: monotone splines with linear maps in between.

    y = f_n(... f_1(x)) W; each step is z = x W_i with W_i in LU form behind a permutation (a random rotation at the start,
    where the paper's is the permutation alone), then y2 = spline(z2; theta(z1)) on half of the features, theta being the
    output of a residual network, and y1 = spline(z1; theta_1) with trained theta_1. log|det J| = the sum of log|det W| and of
    the log-slopes. Data should be standardised: the splines act on [-bound, bound] (`flows.fit` does).

    Args:
        num_layers: steps; a last linear map follows.
        hidden: one residual block for each entry, all of one width; plain: the widths of the network's layers.
        activation: as in `MLP`.
        num_bins: bins of each spline.
        bound: the splines' half-width.
        autoregressive: a masked network, so that each feature sees all before it, and no feature is left as it is. Samples
            are then found feature by feature, in about the time of three or four densities.
        spline: "rational_quadratic", "quadratic", "cubic", "linear" or "linear_rational".
        dropout: the share of hidden units dropped while `train=True`, which then needs `rng`.
        plain: fully connected networks instead of residual ones; the features reversed in between, instead of linear maps;
            kept features as they are.
        scan: as in `NICE`, but a loop by default beyond 3 layers.

    Params:
        A tuple over layers; those of a loop are stacked.

    Errors:
        FlowsError: an argument is outside its range; hidden widths that differ, of a residual network; an event of several
            axes.

    Source:
        Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", 2019, arXiv:1906.04032, sections 3 and 5.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.NSF(2, hidden=(16, 16), num_bins=4))(0, 3)
        >>> sample(1, params, 3).shape
        (3, 3)
    """
    hidden = check_hidden(hidden, "NSF")
    if spline not in SPLINES:
        raise FlowsError(f"NSF: spline is {spline!r:.60}; expected one of {', '.join(SPLINES)}")
    transformer = SPLINES[spline](num_bins=num_bins, bound=bound)
    if plain:
        net = (MaskedMLP if autoregressive else MLP)(*hidden, activation=activation, dropout=dropout)
    else:
        if not hidden or len(set(hidden)) > 1:
            raise FlowsError(f"NSF: hidden is {hidden}; expected one width for each residual block, all equal, or plain=True")
        net = (MaskedResidual if autoregressive else Residual)(hidden[0], len(hidden), activation, dropout=dropout)
    if autoregressive:
        layer = Autoregressive(net, transformer)
    else:
        layer = Coupling(net, transformer, unconditional=None if plain else transformer)
    if plain:
        return stack("NSF", [layer, Reverse()], num_layers, scan)
    return stack("NSF", [InvertibleLinear(), layer], num_layers, scan, [InvertibleLinear()])
