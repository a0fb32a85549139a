"""Autoregressive flows whose transformers are networks, polynomials or mixtures, and the Gaussianization flow.
Family: Monotone networks, polynomials and mixtures."""

from flows.bijections.autoregressive import Autoregressive
from flows.bijections.block_autoregressive import BlockAutoregressive
from flows.bijections.elementwise import Elementwise
from flows.bijections.linear import Householder
from flows.bijections.permutation import Reverse
from flows.conditioners import MaskedMLP
from flows.core import FlowsError, bijection
from flows.models.stack import UNROLLED_INTEGRAL, Activation, check_hidden, stack
from flows.transformers import DeepSigmoidal, Gaussianization, MonotonicNetwork, SumOfSquares


@bijection
def NAF(
    num_layers: int = 5,
    hidden: tuple[int, ...] = (128, 128),
    activation: Activation = "elu",
    num_units: int = 16,
    scan: bool | None = None,
):
    """A neural autoregressive flow: deep sigmoidal transformers, with the features reversed in between.

    y_i = logit(sum_k w_k sigmoid(a_k x_i + b_k)), with a, b and w made of x_<i by a masked network; log|det J| = the sum of
    log dy_i/dx_i over features and layers. The inverse is numerical (`transformers.DeepSigmoidal`).

    Args:
        num_layers: autoregressive layers.
        hidden, activation: as in `NICE`.
        scan: as in `NICE`, but a loop by default beyond 3 layers.
        num_units: sigmoids of each transformer.

    Params:
        A tuple over layers; params of a loop are stacked.

    Cost:
        Direct: a pass of each network. Inverse: two passes of each, and roots.

    Errors:
        FlowsError: an argument is outside its range; an event or a context of several axes.

    Source:
        Huang, Krueger, Lacoste and Courville, "Neural Autoregressive Flows", 2018, arXiv:1804.00779, equation 8.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.NAF(2, hidden=(16,), num_units=4))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    net = MaskedMLP(*check_hidden(hidden, "NAF"), activation=activation)
    return stack("NAF", [Autoregressive(net, DeepSigmoidal(num_units)), Reverse()], num_layers, scan)


@bijection
def BNAF(num_layers: int = 5, hidden: tuple[int, ...] = (10,), scan: bool | None = None):
    """A block neural autoregressive flow: layers that are monotone networks, with the features reversed in between.

    Each layer is y = g x + (1 - g) F(x), of which F_i grows in x_i and sees x_0 .. x_i alone; log|det J| = the sum of the
    logarithms of the Jacobians' diagonals. The inverse is numerical (`BlockAutoregressive`).

    Args:
        num_layers: autoregressive layers.
        hidden: units for each feature, of each hidden layer.
        scan: as in `NICE`, but a loop by default beyond 3 layers.

    Params:
        A tuple over layers; params of a loop are stacked.

    Cost:
        Direct: a pass of each network. Inverse: roots for each feature in turn.

    Errors:
        FlowsError: an argument is outside its range; an event or a context of several axes.

    Source:
        De Cao, Titov and Aziz, "Block Neural Autoregressive Flow", 2019, arXiv:1904.04676, section 4.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.BNAF(2, hidden=(4,)))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    if not (hidden := check_hidden(hidden, "BNAF")):
        raise FlowsError("BNAF: hidden is (); expected the width of at least one hidden layer, such as (10,)")
    return stack("BNAF", [BlockAutoregressive(*hidden), Reverse()], num_layers, scan)


@bijection
def UMNN(
    num_layers: int = 5,
    hidden: tuple[int, ...] = (128, 128),
    activation: Activation = "relu",
    integrand: tuple[int, ...] = (50, 50, 50, 50),
    embedding: int = 30,
    num_nodes: int = 50,
    scan: bool | None = None,
):
    """Unconstrained monotonic networks in an autoregressive flow, with the features reversed in between.

    y_i = beta + integral from 0 to x_i of g(t, h) dt, with the embedding h and beta made of x_<i by a masked network, and g a
    positive network that all features share; log|det J| = the sum of log g(x_i, h). The inverse is numerical
    (`transformers.MonotonicNetwork`).

    Args:
        num_layers: autoregressive layers.
        hidden, activation: as in `NICE`.
        scan: as in `NICE`, but a loop by default beyond 10 layers.
        integrand: widths of the network g.
        embedding: the number of entries of h.
        num_nodes: nodes of the integral.

    Params:
        A tuple over layers and the reversals that follow them; of a layer "conditioner" and "transformer", the weights of g;
        params of a loop are stacked.

    Cost:
        Direct: a pass of each network, and an integral for each feature. Inverse: two passes of each, and roots of integrals.

    Errors:
        FlowsError: an argument is outside its range; an event or a context of several axes.

    Source:
        Wehenkel and Louppe, "Unconstrained Monotonic Neural Networks", 2019, arXiv:1908.05164, section 3.2.

    Example:
        >>> import flows
        >>> init_fun = flows.Flow(flows.UMNN(2, hidden=(16,), integrand=(8,), embedding=2, num_nodes=10))
        >>> params, log_pdf, sample = init_fun(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    net = MaskedMLP(*check_hidden(hidden, "UMNN"), activation=activation)
    transformer = MonotonicNetwork(integrand, embedding, num_nodes)
    return stack("UMNN", [Autoregressive(net, transformer), Reverse()], num_layers, scan, unrolled=UNROLLED_INTEGRAL)


@bijection
def SOS(
    num_layers: int = 8,
    hidden: tuple[int, ...] = (128, 128),
    activation: Activation = "relu",
    num_polynomials: int = 5,
    degree: int = 3,
    scan: bool | None = None,
):
    """A sum-of-squares polynomial flow, with the features reversed in between.

    y_i = c + integral from 0 to x_i of (1e-3 + sum_k p_k(t)^2) dt, with c and the coefficients of the polynomials p_k made of
    x_<i by a masked network; log|det J| = the sum of the logarithms of the integrands. The inverse is numerical
    (`transformers.SumOfSquares`). Data should be standardised: outputs grow like x^(2 degree + 1) (`flows.fit` does).

    Args:
        num_layers: autoregressive layers.
        hidden, activation: as in `NICE`.
        scan: as in `NICE`, but a loop by default beyond 3 layers.
        num_polynomials: how many squares are summed.
        degree: the degree of each p_k.

    Params:
        A tuple over layers; params of a loop are stacked.

    Cost:
        Direct: a pass of each network. Inverse: two passes of each, and roots.

    Errors:
        FlowsError: an argument is outside its range; an event or a context of several axes.

    Source:
        Jaini, Selby and Yu, "Sum-of-Squares Polynomial Flow", 2019, arXiv:1905.02325, section 4.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.SOS(2, hidden=(16,), num_polynomials=2, degree=1))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    net = MaskedMLP(*check_hidden(hidden, "SOS"), activation=activation)
    return stack("SOS", [Autoregressive(net, SumOfSquares(num_polynomials, degree)), Reverse()], num_layers, scan)


@bijection
def GaussianizationFlow(
    num_layers: int = 5, num_components: int = 20, num_reflections: int | None = None, scan: bool | None = None
):
    """A Gaussianization flow: rotations, and a mixture for each feature that is made normal.

    y = f_n(... f_1(x)); each layer is z = x H, a product of reflections, and y_i = Phi^-1(F_i(z_i)) with F_i the distribution
    function of a mixture of logistic distributions, trained for each feature; log|det J| = the sum of log dy_i/dz_i. It needs
    no network, and takes no context; the inverse is numerical in one dimension (`transformers.Gaussianization`).

    Args:
        num_layers: rotations, each followed by mixtures.
        num_components: components of each mixture; the paper has 50 to 100, which cost more and gain little in two layers.
        num_reflections: of each layer; by default as many as there are features, with which H can be any orthogonal matrix of
            its determinant, which is 1 for an even number of reflections and -1 for an odd one.
        scan: as in `NICE`, but a loop by default beyond 3 layers.

    Params:
        A tuple over layers; params of a loop are stacked.

    Cost:
        Direct: O(d components) for each layer. Inverse: the same, and roots.

    Errors:
        FlowsError: an argument is outside its range; an event of several axes. TypeError: context_dim is given.

    Source:
        Meng, Song, Song and Ermon, "Gaussianization Flows", 2020, arXiv:2003.01941, section 4.

    Example:
        >>> import flows
        >>> params, log_pdf, sample = flows.Flow(flows.GaussianizationFlow(2, num_components=4))(0, 2)
        >>> sample(1, params, 3).shape
        (3, 2)
    """
    step = [Householder(num_reflections), Elementwise(Gaussianization(num_components))]
    return stack("GaussianizationFlow", step, num_layers, scan)
