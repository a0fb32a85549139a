"""Flows on the sphere. Family: Spheres."""

from flows.bijections.linear import Householder
from flows.bijections.sphere import SphereCoupling
from flows.conditioners import MLP
from flows.core import bijection
from flows.models.stack import Activation, check_hidden, stack
from flows.transformers import CircularRationalQuadratic, RationalQuadratic


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
