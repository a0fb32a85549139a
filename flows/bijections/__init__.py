"""Bijections: one idea a file."""

from flows.bijections.act_norm import ActNorm, Scale, Standardize
from flows.bijections.affine_coupling import AffineCoupling, AffineCouplingSplit, NeuralSplineCoupling
from flows.bijections.autoregressive import Autoregressive, InverseAutoregressive
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.block_autoregressive import BlockAutoregressive
from flows.bijections.coupling import Coupling
from flows.bijections.dequantize import Dequantize
from flows.bijections.elementwise import Exp, FixedAffine, LeakyReLU, Power, Softplus, Tanh
from flows.bijections.featurewise import Elementwise
from flows.bijections.from_function import FromFunction
from flows.bijections.householder import Householder
from flows.bijections.linear import FixedInvertibleLinear, InvertibleLinear
from flows.bijections.made import MADE, MaskedDense
from flows.bijections.permutation import Reverse, Shuffle, Squeeze
from flows.bijections.supports import Support, support
from flows.bijections.unit_interval import LogisticCDF, Logit, NormalCDF, Sigmoid

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
