"""Scalar monotone maps: `direct(theta, x)` and `inverse(theta, y)`, elementwise, with `theta` (num_params, *x.shape).

This is the one list of their names.
"""

from types import ModuleType as _Module

from flows.transformers.affine import Additive as Additive
from flows.transformers.affine import Affine as Affine
from flows.transformers.affine import Gated as Gated
from flows.transformers.affine import Inverse as Inverse
from flows.transformers.base import transformer as transformer
from flows.transformers.circles import CircularRationalQuadratic as CircularRationalQuadratic
from flows.transformers.circles import Moebius as Moebius
from flows.transformers.integer import Integer as Integer
from flows.transformers.mixture import DeepSigmoidal as DeepSigmoidal
from flows.transformers.mixture import Gaussianization as Gaussianization
from flows.transformers.mixture import MixtureCDF as MixtureCDF
from flows.transformers.monotonic_network import MonotonicNetwork as MonotonicNetwork
from flows.transformers.polynomial_splines import CubicSpline as CubicSpline
from flows.transformers.polynomial_splines import LinearSpline as LinearSpline
from flows.transformers.polynomial_splines import QuadraticSpline as QuadraticSpline
from flows.transformers.polynomials import Bernstein as Bernstein
from flows.transformers.polynomials import SumOfSquares as SumOfSquares
from flows.transformers.rational_splines import LinearRational as LinearRational
from flows.transformers.rational_splines import RationalQuadratic as RationalQuadratic

__all__ = [name for name in globals() if name[0] != "_" and not isinstance(globals()[name], _Module)]
