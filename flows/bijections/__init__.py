"""Bijections: one idea a file."""

from flows.bijections.act_norm import ActNorm, Standardize
from flows.bijections.autoregressive import MADE, Autoregressive, MaskedDense
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.coupling import AffineCoupling, AffineCouplingSplit, Coupling, NeuralSplineCoupling
from flows.bijections.elementwise import Logit, Sigmoid
from flows.bijections.from_function import FromFunction
from flows.bijections.linear import FixedInvertibleLinear, InvertibleLinear
from flows.bijections.permutation import Reverse, Shuffle, Squeeze

__all__ = [
    "MADE",
    "ActNorm",
    "AffineCoupling",
    "AffineCouplingSplit",
    "Autoregressive",
    "BatchNorm",
    "Coupling",
    "FixedInvertibleLinear",
    "FromFunction",
    "InvertibleLinear",
    "Logit",
    "MaskedDense",
    "NeuralSplineCoupling",
    "Reverse",
    "Shuffle",
    "Sigmoid",
    "Squeeze",
    "Standardize",
]
