"""Scalar monotone maps: `direct(theta, x)` and `inverse(theta, y)`, elementwise, with `theta` (num_params, *x.shape)."""

from flows.transformers.affine import Additive, Affine, Gated, Inverse
from flows.transformers.base import transformer
from flows.transformers.bernstein import Bernstein
from flows.transformers.circular import CircularRationalQuadratic
from flows.transformers.cubic import Cubic
from flows.transformers.gaussianization import Gaussianization
from flows.transformers.linear import Linear
from flows.transformers.linear_rational import LinearRational
from flows.transformers.mixture import DeepSigmoidal, MixtureCDF
from flows.transformers.monotonic_network import MonotonicNetwork
from flows.transformers.quadratic import Quadratic
from flows.transformers.rational_quadratic import RationalQuadratic
from flows.transformers.sum_of_squares import SumOfSquares

__all__ = [
    "Additive",
    "Affine",
    "Gated",
    "Inverse",
    "CircularRationalQuadratic",
    "Cubic",
    "Linear",
    "LinearRational",
    "Quadratic",
    "RationalQuadratic",
    "MixtureCDF",
    "DeepSigmoidal",
    "Gaussianization",
    "Bernstein",
    "SumOfSquares",
    "MonotonicNetwork",
    "transformer",
]
