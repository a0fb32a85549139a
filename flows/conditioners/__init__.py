"""Networks that make the parameters of a transformer."""

from flows.conditioners.mlp import MLP, MaskedMLP
from flows.core import conditioner

__all__ = ["MLP", "MaskedMLP", "conditioner"]
