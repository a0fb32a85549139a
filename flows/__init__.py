"""Normalizing flows for JAX.

    params, direct_fun, inverse_fun = init_fun(rng, input_dim=5)      # a bijection
    params, log_pdf, sample         = init_fun(rng, input_dim=5)      # a distribution; a flow is just a distribution

A constructor such as `RealNVP()` returns an `init_fun`; params are plain pytrees; training is any JAX loop, or `flows.fit`.
"""

from flows import conditioners, transformers
from flows.bijections import (
    MADE,
    ActNorm,
    AffineCoupling,
    AffineCouplingSplit,
    Autoregressive,
    BatchNorm,
    Coupling,
    FixedInvertibleLinear,
    FromFunction,
    InvertibleLinear,
    Logit,
    MaskedDense,
    NeuralSplineCoupling,
    Reverse,
    Shuffle,
    Sigmoid,
    Squeeze,
    Standardize,
)
from flows.compose import FactorOut, Invert, Repeat, Serial
from flows.conditioners import MLP
from flows.core import (
    Bijection,
    Distribution,
    FlowsError,
    bijection,
    calibrate,
    clear_caches,
    conditioner,
    distribution,
    trainable,
)
from flows.diagnostics import Report, verify
from flows.distributions import GMM, Flow, Normal
from flows.models import MAF, NSF, RealNVP
from flows.persistence import describe, load, save
from flows.training import FitResult, fit

__version__ = "0.1.0"

__all__ = [
    "GMM",
    "MADE",
    "MAF",
    "MLP",
    "NSF",
    "ActNorm",
    "AffineCoupling",
    "AffineCouplingSplit",
    "Autoregressive",
    "BatchNorm",
    "Bijection",
    "Coupling",
    "Distribution",
    "FitResult",
    "FactorOut",
    "FixedInvertibleLinear",
    "Flow",
    "FlowsError",
    "FromFunction",
    "Invert",
    "InvertibleLinear",
    "Logit",
    "MaskedDense",
    "NeuralSplineCoupling",
    "Normal",
    "RealNVP",
    "Repeat",
    "Report",
    "Reverse",
    "Serial",
    "Shuffle",
    "Sigmoid",
    "Squeeze",
    "Standardize",
    "bijection",
    "calibrate",
    "clear_caches",
    "conditioner",
    "conditioners",
    "describe",
    "distribution",
    "fit",
    "load",
    "save",
    "trainable",
    "transformers",
    "verify",
]
