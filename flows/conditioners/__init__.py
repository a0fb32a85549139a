"""Networks that make the parameters of a transformer. This is the one list of their names."""

from types import ModuleType as _Module

from flows.conditioners.adapters import FromEquinox as FromEquinox
from flows.conditioners.adapters import FromLinen as FromLinen
from flows.conditioners.adapters import FromNNX as FromNNX
from flows.conditioners.adapters import FromStax as FromStax
from flows.conditioners.attention import GatedConv as GatedConv
from flows.conditioners.attention import attend as attend
from flows.conditioners.base import conditioner as conditioner
from flows.conditioners.conv_networks import ConvNet as ConvNet
from flows.conditioners.conv_networks import Convolution as Convolution
from flows.conditioners.conv_networks import ConvResidual as ConvResidual
from flows.conditioners.conv_networks import ConvSkip as ConvSkip
from flows.conditioners.convolution import conv as conv
from flows.conditioners.dense import MLP as MLP
from flows.conditioners.dense import ConcatSquash as ConcatSquash
from flows.conditioners.lipschitz import Lipschitz as Lipschitz
from flows.conditioners.masked import MaskedMLP as MaskedMLP
from flows.conditioners.pair import Pair as Pair
from flows.conditioners.residual import MaskedResidual as MaskedResidual
from flows.conditioners.residual import Residual as Residual
from flows.conditioners.sets import DeepSet as DeepSet

__all__ = [name for name in globals() if name[0] != "_" and not isinstance(globals()[name], _Module)]
