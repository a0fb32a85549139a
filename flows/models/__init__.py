"""Published flows for vectors, as short compositions of the library's layers."""

from flows.models.autoregressive import IAF, MAF, MixtureMADE
from flows.models.coupling import NICE, Glow, RealNVP
from flows.models.monotone import BNAF, NAF, SOS, UMNN, GaussianizationFlow
from flows.models.splines import NSF

__all__ = [
    "BNAF",
    "IAF",
    "MAF",
    "NAF",
    "NICE",
    "NSF",
    "SOS",
    "UMNN",
    "GaussianizationFlow",
    "Glow",
    "MixtureMADE",
    "RealNVP",
]
