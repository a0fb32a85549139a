"""A flow as a distribution, a transform, a module and a guide in NumPyro, and NumPyro's as layers and bases of ours."""

from flows.interop.extras import needs

needs("numpyro")

from flows.interop.numpyro.distribution import distribution as distribution  # noqa: E402
from flows.interop.numpyro.foreign import FromDistribution as FromDistribution  # noqa: E402
from flows.interop.numpyro.foreign import FromTransform as FromTransform  # noqa: E402
from flows.interop.numpyro.guide import AutoFlow as AutoFlow  # noqa: E402
from flows.interop.numpyro.model import ModelDensity as ModelDensity  # noqa: E402
from flows.interop.numpyro.model import ModelFit as ModelFit  # noqa: E402
from flows.interop.numpyro.model import fit_model as fit_model  # noqa: E402
from flows.interop.numpyro.model import log_density as log_density  # noqa: E402
from flows.interop.numpyro.module import module as module  # noqa: E402
from flows.interop.numpyro.transform import transform as transform  # noqa: E402

__all__ = [
    "AutoFlow",
    "FromDistribution",
    "FromTransform",
    "ModelDensity",
    "ModelFit",
    "distribution",
    "fit_model",
    "log_density",
    "module",
    "transform",
]
