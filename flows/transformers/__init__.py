"""Scalar monotone maps: `direct(theta, x)` and `inverse(theta, y)`, elementwise, with `theta` (num_params, *x.shape).

This is the one list of their names.
"""

from types import ModuleType as _Module

from flows.transformers.affine import Additive as Additive
from flows.transformers.affine import Affine as Affine
from flows.transformers.affine import Gated as Gated
from flows.transformers.affine import Inverse as Inverse
from flows.transformers.base import transformer as transformer
from flows.transformers.bernstein import Bernstein as Bernstein
from flows.transformers.circular import CircularRationalQuadratic as CircularRationalQuadratic
from flows.transformers.cubic import CubicSpline as CubicSpline
from flows.transformers.gaussianization import Gaussianization as Gaussianization
from flows.transformers.linear import LinearSpline as LinearSpline
from flows.transformers.linear_rational import LinearRational as LinearRational
from flows.transformers.mixture import DeepSigmoidal as DeepSigmoidal
from flows.transformers.mixture import MixtureCDF as MixtureCDF
from flows.transformers.moebius import Moebius as Moebius
from flows.transformers.monotonic_network import MonotonicNetwork as MonotonicNetwork
from flows.transformers.quadratic import QuadraticSpline as QuadraticSpline
from flows.transformers.rational_quadratic import RationalQuadratic as RationalQuadratic
from flows.transformers.sum_of_squares import SumOfSquares as SumOfSquares

__all__ = [name for name in globals() if name[0] != "_" and not isinstance(globals()[name], _Module)]
