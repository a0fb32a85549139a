"""A flow as a distribution, a transform, a module and a guide in NumPyro, and objects of NumPyro as layers and bases."""

from flows.interop import needs

needs("numpyro")

from flows.interop.numpyro.distribution import distribution  # noqa: E402
from flows.interop.numpyro.foreign import FromDistribution, FromTransform  # noqa: E402
from flows.interop.numpyro.model import ModelDensity, ModelFit, fit_model, log_density  # noqa: E402
from flows.interop.numpyro.svi import AutoFlow, module  # noqa: E402
from flows.interop.numpyro.transform import transform  # noqa: E402

__all__ = [
    "distribution",
    "module",
    "transform",
    "AutoFlow",
    "fit_model",
    "ModelFit",
    "log_density",
    "ModelDensity",
    "FromTransform",
    "FromDistribution",
]
