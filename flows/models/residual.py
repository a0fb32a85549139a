"""Flows of residual blocks. Family: Residual."""

from flows.bijections.residual import ResidualBlock
from flows.bijections.scaling import ActNorm
from flows.conditioners import Lipschitz
from flows.core import bijection
from flows.models.stack import UNROLLED, check_hidden, stack

HIDDEN = (64, 64)


@bijection
def IResNet(
    num_layers: int = 10,
    hidden: tuple[int, ...] = HIDDEN,
    activation: str = "elu",
    coefficient: float = 0.97,
    scan: bool | None = None,
):
    """An invertible residual network: blocks y = x + g(x) of networks that contract, with an exact log-det, after ActNorm each.

    log|det J| = the sum over blocks of log det(1 + dg/dx), and of the log-scales. It is exact, where the paper's is a power
    series cut off, and so biased; it costs d forward derivatives and d^3 for each block.

    Args:
        num_layers: blocks.
        hidden: widths of each network's hidden layers.
        activation: as in `conditioners.Lipschitz`.
        coefficient: the largest norm of each weight matrix.
        scan: as in `NICE`, but a loop by default beyond 3 layers.

    Params:
        A tuple over layers; params of a loop are stacked.

    Cost:
        Direct: the cost of each `ResidualBlock`. Inverse: the cost of each `ResidualBlock`.

    Errors:
        FlowsError: an argument is outside its range; an event of several axes.

    Source:
        Behrmann, Grathwohl, Chen, Duvenaud and Jacobsen, "Invertible Residual Networks", 2019, arXiv:1811.00995.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.IResNet(2, hidden=(16,)))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    return _blocks("IResNet", num_layers, hidden, coefficient, activation, "exact", scan)


@bijection
def ResidualFlow(
    num_layers: int = 10,
    hidden: tuple[int, ...] = HIDDEN,
    activation: str = "lipswish",
    coefficient: float = 0.97,
    log_det: str = "unbiased",
    scan: bool | None = None,
):
    """A residual flow: blocks y = x + g(x) of networks that contract, trained by an unbiased log-det, after ActNorm each.

    log|det J| = the sum over blocks of log det(1 + dg/dx), and of the log-scales. Without `rng` it is exact, so that densities
    are; with it, as in training, each block's is a draw of a series (`ResidualBlock`). Up to some 10 features the exact one
    costs less: log_det="exact".

    Args:
        num_layers, hidden, coefficient, scan: as in `IResNet`.
        activation: as in `conditioners.Lipschitz`; lipswish has a second derivative that does not vanish where its slope is 1.
        log_det: "unbiased" or "exact".

    Params:
        A tuple over layers; params of a loop are stacked.

    Cost:
        Direct: the cost of each `ResidualBlock`. Inverse: the cost of each `ResidualBlock`.

    Errors:
        FlowsError: an argument is outside its range; an event of several axes.

    Source:
        Chen, Behrmann, Duvenaud and Jacobsen, "Residual Flows for Invertible Generative Modeling", 2019, arXiv:1906.02735.

    Example:
        >>> import flows
        >>> init_fun = flows.Flow(flows.ResidualFlow(2, hidden=(16,)))
        >>> params, log_pdf, sample = init_fun(0, 2)
        >>> init_fun.likelihood, sample(1, params, 3).shape
        ('unbiased', (3, 2))
    """
    return _blocks("ResidualFlow", num_layers, hidden, coefficient, activation, log_det, scan)


def _blocks(name: str, num_layers: int, hidden: tuple, coefficient: float, activation: str, log_det: str, scan: bool | None):
    net = Lipschitz(*check_hidden(hidden, name), coefficient=coefficient, activation=activation)
    return stack(name, [ActNorm(), ResidualBlock(net, log_det)], num_layers, scan, unrolled=UNROLLED)
