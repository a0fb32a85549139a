"""Networks that make the parameters of a transformer."""

from flows.conditioners.adapters import FromEquinox, FromLinen, FromNNX, FromStax
from flows.conditioners.base import conditioner
from flows.conditioners.conv_networks import ConvNet, Convolution, ConvResidual
from flows.conditioners.convolution import conv
from flows.conditioners.dense import MLP, ConcatSquash
from flows.conditioners.lipschitz import Lipschitz
from flows.conditioners.masked import MaskedMLP
from flows.conditioners.residual import MaskedResidual, Residual

__all__ = [
    "ConcatSquash",
    "ConvNet",
    "ConvResidual",
    "Convolution",
    "FromEquinox",
    "FromLinen",
    "FromNNX",
    "FromStax",
    "Lipschitz",
    "MLP",
    "MaskedMLP",
    "MaskedResidual",
    "Residual",
    "conditioner",
    "conv",
]
