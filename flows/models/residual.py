"""Flows of residual blocks, and continuous flows, their limit. Family: Residual and continuous."""

from flows.bijections.continuous import Continuous
from flows.bijections.residual import ResidualBlock
from flows.bijections.scaling import ActNorm
from flows.conditioners import Lipschitz
from flows.conditioners.dense import ConcatSquash
from flows.core import bijection
from flows.models.stack import UNROLLED, UNROLLED_INTEGRAL, Activation, check_hidden, stack

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


@bijection
def FFJORD(
    num_layers: int = 1,
    hidden: tuple[int, ...] = (64, 64, 64),
    activation: Activation = "softplus",
    trace: str = "hutchinson",
    solver: str = "rk4",
    steps: int | None = 8,
    tolerance: float | None = None,
    scan: bool | None = None,
):
    """Continuous flows one after the other, each of a concat-squash network, with an estimate of the trace.

    In training (`rng` is given) log_det is an unbiased estimate by one draw of signs; without it, it is exact. The paper solves
    by adaptive steps of "dopri5", in training too; here 8 equal ones are the default, as a gradient then takes a twentieth of
    the time. For densities that integrate to 1 within a tolerance use the params with
    `FFJORD(solver="dopri5", steps=None)`, which has the same.

    Args:
        num_layers: continuous layers.
        hidden: widths of each network.
        activation: as in `MLP`.
        trace, solver, steps, tolerance: as in `Continuous`.
        scan: one compiled loop (`Repeat`) over the layers, by default beyond 10.

    Params:
        A tuple over layers; for a loop the params of its layers, stacked.

    Cost:
        Direct: an evaluation of the network and its trace at each stage of each step. Inverse: without the trace.

    Errors:
        FlowsError and ImportError: as in `Continuous`.

    Source:
        Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, "FFJORD: Free-form Continuous Dynamics for Scalable Reversible
        Generative Models", 2019, arXiv:1810.01367.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.FFJORD(hidden=(16,)))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    return _layers("FFJORD", num_layers, hidden, activation, trace, solver, steps, tolerance, scan)


@bijection
def RNODE(
    num_layers: int = 1,
    hidden: tuple[int, ...] = (64, 64, 64),
    activation: Activation = "softplus",
    trace: str = "hutchinson",
    solver: str = "rk4",
    steps: int | None = 8,
    tolerance: float | None = None,
    kinetic: float = 0.01,
    jacobian: float = 0.01,
    scan: bool | None = None,
):
    """FFJORD with regularised dynamics: straight and even paths, for which few equal steps are enough.

    Under `train=True` 0.01 times the integrals of |v|^2 and of |dv/dx|^2 are subtracted from log_det. The paper trains by 4
    steps, half as many as are the default here: on two moons one of two such fits had a velocity that these steps solve
    wrongly, in favour of the data, by 0.1 nats a row.

    Args:
        num_layers, hidden, activation, trace, solver, steps, tolerance, scan: as in `FFJORD`.
        kinetic, jacobian: the weights of both integrals, as in `Continuous`.

    Params:
        The params of `FFJORD`.

    Cost:
        Direct: an evaluation of the network and its trace at each stage of each step. Inverse: without the trace.

    Errors:
        FlowsError and ImportError: as in `Continuous`.

    Source:
        Finlay, Jacobsen, Nurbekyan and Oberman, "How to Train Your Neural ODE: the World of Jacobian and Kinetic
        Regularization", 2020, arXiv:2002.02798.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.RNODE(hidden=(16,)))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    return _layers("RNODE", num_layers, hidden, activation, trace, solver, steps, tolerance, scan, kinetic, jacobian)


def _layers(name, num_layers, hidden, activation, trace, solver, steps, tolerance, scan, kinetic=0.0, jacobian=0.0):
    net = ConcatSquash(*check_hidden(hidden, name), activation=activation)
    layer = Continuous(net, trace, solver, steps, tolerance, kinetic=kinetic, jacobian=jacobian)
    return stack(name, [layer], num_layers, scan, unrolled=UNROLLED_INTEGRAL)
