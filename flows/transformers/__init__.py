"""Scalar monotone maps: `direct(theta, x)` and `inverse(theta, y)`, elementwise, with `theta` (num_params, *x.shape)."""

from flows.core import transformer
from flows.transformers.affine import Affine, Inverse
from flows.transformers.rational_quadratic import RationalQuadratic

__all__ = ["Affine", "Inverse", "RationalQuadratic", "transformer"]
