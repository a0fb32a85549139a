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
    BlockAutoregressive,
    Coupling,
    Elementwise,
    Exp,
    FixedAffine,
    FixedInvertibleLinear,
    FromFunction,
    InverseAutoregressive,
    InvertibleLinear,
    LeakyReLU,
    LogisticCDF,
    Logit,
    MaskedDense,
    NeuralSplineCoupling,
    NormalCDF,
    Power,
    Reverse,
    Shuffle,
    Sigmoid,
    Softplus,
    Squeeze,
    Standardize,
    Tanh,
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
from flows.distributions import GMM, Flow, Joint, Laplace, Logistic, Mixture, Normal, StudentT, Uniform
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
    "BlockAutoregressive",
    "Coupling",
    "Distribution",
    "Exp",
    "FitResult",
    "FixedAffine",
    "FactorOut",
    "Elementwise",
    "FixedInvertibleLinear",
    "Flow",
    "FlowsError",
    "FromFunction",
    "Invert",
    "InverseAutoregressive",
    "InvertibleLinear",
    "Joint",
    "Laplace",
    "LeakyReLU",
    "Logistic",
    "LogisticCDF",
    "Logit",
    "MaskedDense",
    "Mixture",
    "NeuralSplineCoupling",
    "Normal",
    "NormalCDF",
    "Power",
    "RealNVP",
    "Repeat",
    "Report",
    "Reverse",
    "Serial",
    "Shuffle",
    "Sigmoid",
    "Softplus",
    "Squeeze",
    "Standardize",
    "StudentT",
    "Tanh",
    "Uniform",
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
