"""Neural spline flows, coupling and autoregressive, with any of the splines. Family: Splines."""

from collections.abc import Sequence
from typing import Literal

from flows.bijections.autoregressive import Autoregressive
from flows.bijections.coupling import Coupling
from flows.bijections.linear import InvertibleLinear
from flows.bijections.permutation import Reverse
from flows.conditioners import MLP, MaskedMLP, MaskedResidual, Residual
from flows.conditioners.network import Squash
from flows.core import DistributionInit, FlowsError, bijection, positive_int
from flows.distributions.directional import CircularUniform
from flows.distributions.flow import Flow
from flows.distributions.joint import Joint
from flows.models.stack import SQUASH, Activation, check_hidden, stack
from flows.transformers import (
    CircularRationalQuadratic,
    CubicSpline,
    LinearRational,
    LinearSpline,
    QuadraticSpline,
    RationalQuadratic,
)

SPLINES = {
    "rational_quadratic": RationalQuadratic,
    "quadratic": QuadraticSpline,
    "cubic": CubicSpline,
    "linear": LinearSpline,
    "linear_rational": LinearRational,
}
SHALLOW, DEEP_SQUASH = 8, 1.5  # errors of an inverse grow with depth, and with it what keeps them small
WITHOUT_SLOPES = ("cubic", "linear")


@bijection
def NSF(
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    activation: Activation = "relu",
    num_bins: int = 10,
    bound: float = 10.0,
    autoregressive: bool = True,
    spline: str = "rational_quadratic",
    dropout: float = 0.0,
    plain: bool = False,
    linear: bool = False,
    squash: Squash | Literal["auto"] = "auto",
    min_bin: float | None = None,
    min_slope: float | None = None,
    scan: bool | None = None,
):
    """A neural spline flow: monotone splines, with the features reversed or mixed by linear maps in between.

    Autoregressive: y_i = spline(x_i; theta_i(x_<i)) in each layer, theta being the output of a masked residual network.
    Coupling: y2 = spline(x2; theta(x1)) on half of the features, and y1 = spline(x1; theta_1) with trained theta_1. log|det J|
    = the sum of the log-slopes and of the maps' log|det W|. Data should be standardised, as the splines act on [-bound, bound]
    (`flows.fit` does). Samples of the autoregressive flow are found feature by feature, in about the time of three or four
    densities.

    The defaults did best over many tables (`benchmarks/defaults.py`). The paper's: `NSF(10, (256, 256), num_bins=8,
    bound=3.0, autoregressive=False, linear=True, dropout=0.2,
    squash=None, min_bin=1e-3, min_slope=1e-3)`.

    Args:
        num_layers: layers of splines.
        hidden: one residual block for each entry, all of one width; plain: the widths of the network's layers.
        activation: as in `MLP`.
        num_bins: bins of each spline.
        bound: the splines' half-width.
        autoregressive: each feature sees all before it, and none is left as it is; otherwise couplings of two halves.
        spline: "rational_quadratic", "quadratic", "cubic", "linear" or "linear_rational".
        dropout: the share of hidden units dropped while `train=True`, which then needs `rng`.
        plain: fully connected networks instead of residual ones; features that a coupling keeps stay as they are.
        linear: a trained matrix in LU form before each layer and after the last, instead of the features reversed (a random
            rotation at the start, where the paper's is a permutation).
        squash: how far out the networks see their inputs as they are, as in `Coupling`: by default 3, and 1.5 where there are
            more than 8 layers; None for as far as they go.
        min_bin, min_slope: the least width and height of a bin in units of 2 bound, and the least slope, as in the splines
            themselves; by default 0.2 / num_bins and 0.05 for rational-quadratic ones, twice as much beyond 8 layers, and
            the defaults of the other splines. With `squash` they keep the inverses of deep flows precise far from the data
            (`benchmarks/stability.py`).
        scan: as in `NICE`, but a loop by default beyond 3 layers.

    Params:
        A tuple over layers; params of a loop are stacked.

    Cost:
        Direct: a pass of each network. Inverse: two passes of each; of couplings the same as direct.

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
    hidden, deep = check_hidden(hidden, "NSF"), positive_int(num_layers, "NSF: num_layers", most=10_000) > SHALLOW
    reach = (DEEP_SQUASH if deep else SQUASH) if isinstance(squash, str) and squash == "auto" else squash
    if not isinstance(spline, str) or spline not in SPLINES:
        raise FlowsError(f"NSF: spline is {spline!r:.60}; expected one of {', '.join(SPLINES)}")
    floor, num_bins = 2 if deep else 1, positive_int(num_bins, "NSF: num_bins")
    safe = {"min_bin": 0.2 * floor / num_bins, "min_slope": 0.05 * floor} if spline == "rational_quadratic" else {}
    limits = {name: value for name, value in (("min_bin", min_bin), ("min_slope", min_slope)) if value is not None}
    if min_slope is not None and spline in WITHOUT_SLOPES:
        raise FlowsError(f"NSF: min_slope was given, but the {spline} spline has no such argument; leave it out")
    transformer = SPLINES[spline](num_bins=num_bins, bound=bound, **safe | limits)
    if plain:
        net = (MaskedMLP if autoregressive else MLP)(*hidden, activation=activation, dropout=dropout)
    else:
        if not hidden or len(set(hidden)) > 1:
            raise FlowsError(f"NSF: hidden is {hidden}; expected one width for each residual block, all equal, or plain=True")
        net = (MaskedResidual if autoregressive else Residual)(hidden[0], len(hidden), activation, dropout=dropout)
    if autoregressive:
        layer = Autoregressive(net, transformer, squash=reach)
    else:
        layer = Coupling(net, transformer, squash=reach, unconditional=None if plain else transformer)
    if linear:
        return stack("NSF", [InvertibleLinear(), layer], num_layers, scan, [InvertibleLinear()])
    return stack("NSF", [layer, Reverse()], num_layers, scan)


def circular_splines(periods: Sequence[float]) -> DistributionInit:
    """Return a model of angles of these periods: an autoregressive layer of circular splines on uniform angles."""
    splines = [CircularRationalQuadratic(bound=period / 2) for period in periods]
    uniform = [CircularUniform(period) for period in periods]
    base = uniform[0] if len(set(periods)) == 1 else Joint(*uniform)
    return Flow(Autoregressive(transformer=splines), base)
