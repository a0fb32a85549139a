"""Bijections: one idea a file."""

from flows.bijections.autoregressive import Autoregressive, InverseAutoregressive
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.block_autoregressive import BlockAutoregressive
from flows.bijections.coupling import Coupling
from flows.bijections.dequantize import Dequantize
from flows.bijections.elementwise import Elementwise
from flows.bijections.from_function import FromFunction
from flows.bijections.householder import Householder
from flows.bijections.linear import FixedInvertibleLinear, InvertibleLinear
from flows.bijections.original import MADE, AffineCoupling, AffineCouplingSplit, MaskedDense, NeuralSplineCoupling
from flows.bijections.permutation import Reverse, Shuffle, Squeeze
from flows.bijections.scalar_maps import Exp, FixedAffine, LeakyReLU, Power, Softplus, Tanh
from flows.bijections.scaling import ActNorm, Scale, Standardize
from flows.bijections.supports import support
from flows.bijections.unit_interval import LogisticCDF, Logit, NormalCDF, Sigmoid
from flows.core.contract import Support

__all__ = [
    "MADE",
    "ActNorm",
    "AffineCoupling",
    "AffineCouplingSplit",
    "Autoregressive",
    "BatchNorm",
    "BlockAutoregressive",
    "Coupling",
    "Dequantize",
    "Elementwise",
    "Exp",
    "FixedAffine",
    "FixedInvertibleLinear",
    "FromFunction",
    "Householder",
    "InverseAutoregressive",
    "InvertibleLinear",
    "LeakyReLU",
    "LogisticCDF",
    "Logit",
    "MaskedDense",
    "NeuralSplineCoupling",
    "NormalCDF",
    "Power",
    "Reverse",
    "Scale",
    "Shuffle",
    "Sigmoid",
    "Softplus",
    "Squeeze",
    "Standardize",
    "Support",
    "Tanh",
    "support",
]
