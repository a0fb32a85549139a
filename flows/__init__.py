"""Normalizing flows for JAX.

    params, direct_fun, inverse_fun = init_fun(rng, input_dim=5)      # a bijection
    params, log_pdf, sample         = init_fun(rng, input_dim=5)      # a distribution; a flow is just a distribution

A constructor such as `RealNVP()` returns an `init_fun`; params are plain pytrees; training is any JAX loop, or `flows.fit`.
"""

# The one list of public names: a new layer, distribution or model is imported here by its own name, and that is all.
import importlib as _importlib
import typing as _typing
from types import ModuleType as _Module

from flows import _interrupts as _interrupts  # first: a Ctrl-C may come while the rest is imported
from flows import conditionals as conditionals
from flows import conditioners as conditioners
from flows import datasets as datasets
from flows import diagnostics as diagnostics
from flows import mcmc as mcmc
from flows import models as models
from flows import objectives as objectives
from flows import training as training
from flows import transformers as transformers
from flows.bijections.argmax import Argmax as Argmax
from flows.bijections.autoregressive import Autoregressive as Autoregressive
from flows.bijections.autoregressive import InverseAutoregressive as InverseAutoregressive
from flows.bijections.block_autoregressive import BlockAutoregressive as BlockAutoregressive
from flows.bijections.bounds import LogisticCDF as LogisticCDF
from flows.bijections.bounds import Logit as Logit
from flows.bijections.bounds import NormalCDF as NormalCDF
from flows.bijections.bounds import Sigmoid as Sigmoid
from flows.bijections.bounds import Unconstrain as Unconstrain
from flows.bijections.continuous import Continuous as Continuous
from flows.bijections.coupling import Coupling as Coupling
from flows.bijections.degrees import from_degrees as from_degrees
from flows.bijections.degrees import to_degrees as to_degrees
from flows.bijections.elementwise import Elementwise as Elementwise
from flows.bijections.elementwise import Exp as Exp
from flows.bijections.elementwise import FixedAffine as FixedAffine
from flows.bijections.elementwise import LeakyReLU as LeakyReLU
from flows.bijections.elementwise import Power as Power
from flows.bijections.elementwise import Softplus as Softplus
from flows.bijections.elementwise import Tanh as Tanh
from flows.bijections.from_function import FromFunction as FromFunction
from flows.bijections.layouts import Checkerboard as Checkerboard
from flows.bijections.layouts import Patchify as Patchify
from flows.bijections.layouts import Reshape as Reshape
from flows.bijections.layouts import Squeeze as Squeeze
from flows.bijections.layouts import Stripes as Stripes
from flows.bijections.linear import FixedInvertibleLinear as FixedInvertibleLinear
from flows.bijections.linear import Householder as Householder
from flows.bijections.linear import InvertibleLinear as InvertibleLinear
from flows.bijections.linear_factors import LinearExponential as LinearExponential
from flows.bijections.linear_factors import LinearLowRank as LinearLowRank
from flows.bijections.linear_factors import LinearQR as LinearQR
from flows.bijections.linear_factors import LinearSVD as LinearSVD
from flows.bijections.linear_factors import Triangular as Triangular
from flows.bijections.noise import Dequantize as Dequantize
from flows.bijections.noise import Noise as Noise
from flows.bijections.noise import RandomFlip as RandomFlip
from flows.bijections.original import MADE as MADE
from flows.bijections.original import AffineCoupling as AffineCoupling
from flows.bijections.original import AffineCouplingSplit as AffineCouplingSplit
from flows.bijections.original import MaskedDense as MaskedDense
from flows.bijections.original import NeuralSplineCoupling as NeuralSplineCoupling
from flows.bijections.permutation import Permute as Permute
from flows.bijections.permutation import Reverse as Reverse
from flows.bijections.permutation import Shuffle as Shuffle
from flows.bijections.planar import Planar as Planar
from flows.bijections.planar import Radial as Radial
from flows.bijections.planar import Sylvester as Sylvester
from flows.bijections.quantile_maps import Arcsinh as Arcsinh
from flows.bijections.quantile_maps import NormalScores as NormalScores
from flows.bijections.residual import ResidualBlock as ResidualBlock
from flows.bijections.scaling import ActNorm as ActNorm
from flows.bijections.scaling import BatchNorm as BatchNorm
from flows.bijections.scaling import Scale as Scale
from flows.bijections.scaling import Standardize as Standardize
from flows.bijections.sphere import Cylinder as Cylinder
from flows.bijections.sphere import Rotation as Rotation
from flows.bijections.sphere import SphereCoupling as SphereCoupling
from flows.bijections.surjections import Abs as Abs
from flows.bijections.surjections import Augment as Augment
from flows.bijections.surjections import Slice as Slice
from flows.bijections.surjections import Sort as Sort
from flows.bijections.transition import Transition as Transition
from flows.bijections.whiten import Whiten as Whiten
from flows.checks import Check as Check
from flows.checks import Checks as Checks
from flows.checks import check as check
from flows.compose import ConditionalCoupling as ConditionalCoupling
from flows.compose import FactorOut as FactorOut
from flows.compose import Invert as Invert
from flows.compose import Repeat as Repeat
from flows.compose import Reversible as Reversible
from flows.compose import Serial as Serial
from flows.compose import Through as Through
from flows.conditioners import MLP as MLP
from flows.conditioners.base import conditioner as conditioner
from flows.conditioners.one_hot import one_hot as one_hot
from flows.core import CIRCLE as CIRCLE
from flows.core import INTEGERS as INTEGERS
from flows.core import SPHERE as SPHERE
from flows.core import Bijection as Bijection
from flows.core import Distribution as Distribution
from flows.core import FitError as FitError
from flows.core import FlowsError as FlowsError
from flows.core import Layer as Layer
from flows.core import Region as Region
from flows.core import Support as Support
from flows.core import bijection as bijection
from flows.core import clear_caches as clear_caches
from flows.core import distribution as distribution
from flows.core import new_name as _new_name
from flows.core import remeasure as remeasure
from flows.core import revise as revise
from flows.core import show_versions as show_versions
from flows.core import surjection as surjection
from flows.core import trainable as trainable
from flows.diagnostics import VerifyReport as VerifyReport
from flows.diagnostics import bits_per_dim as bits_per_dim
from flows.diagnostics import verify as verify
from flows.distributions.any_subset import AnySubset as AnySubset
from flows.distributions.categorical import Categorical as Categorical
from flows.distributions.conditional import Conditional as Conditional
from flows.distributions.conditional import gaps as gaps
from flows.distributions.directional import CircularUniform as CircularUniform
from flows.distributions.directional import SphereUniform as SphereUniform
from flows.distributions.directional import VonMises as VonMises
from flows.distributions.directional import VonMisesFisher as VonMisesFisher
from flows.distributions.discretized_logistic import DiscretizedLogistic as DiscretizedLogistic
from flows.distributions.draws import sample_with_log_pdf as sample_with_log_pdf
from flows.distributions.embedded_context import EmbeddedContext as EmbeddedContext
from flows.distributions.flow import Flow as Flow
from flows.distributions.joint import ChainRule as ChainRule
from flows.distributions.joint import Joint as Joint
from flows.distributions.location_scale import Laplace as Laplace
from flows.distributions.location_scale import Logistic as Logistic
from flows.distributions.location_scale import StudentT as StudentT
from flows.distributions.mixture import Mixture as Mixture
from flows.distributions.normal import Normal as Normal
from flows.distributions.normal_mixtures import GMM as GMM
from flows.distributions.normal_mixtures import KernelDensity as KernelDensity
from flows.distributions.standardized_context import StandardizedContext as StandardizedContext
from flows.distributions.support import support as support
from flows.distributions.uniform import Uniform as Uniform
from flows.models.autoregressive import IAF as IAF
from flows.models.autoregressive import MAF as MAF
from flows.models.autoregressive import MixtureMADE as MixtureMADE
from flows.models.coupling import NICE as NICE
from flows.models.coupling import Glow as Glow
from flows.models.coupling import RealNVP as RealNVP
from flows.models.coupling import SphereFlow as SphereFlow
from flows.models.flow_plus_plus import FlowPlusPlus as FlowPlusPlus
from flows.models.flow_plus_plus import FlowPlusPlusNoise as FlowPlusPlusNoise
from flows.models.images import GlowImage as GlowImage
from flows.models.images import NICEImage as NICEImage
from flows.models.images import NSFImage as NSFImage
from flows.models.images import RealNVPImage as RealNVPImage
from flows.models.indexed import VAE as VAE
from flows.models.indexed import ContinuouslyIndexed as ContinuouslyIndexed
from flows.models.monotone import BNAF as BNAF
from flows.models.monotone import NAF as NAF
from flows.models.monotone import SOS as SOS
from flows.models.monotone import UMNN as UMNN
from flows.models.monotone import GaussianizationFlow as GaussianizationFlow
from flows.models.residual import FFJORD as FFJORD
from flows.models.residual import RNODE as RNODE
from flows.models.residual import IResNet as IResNet
from flows.models.residual import ResidualFlow as ResidualFlow
from flows.models.splines import NSF as NSF
from flows.persistence import describe as describe
from flows.persistence import save as save
from flows.persistence.programs import keep_programs as keep_programs
from flows.results import FitResult as FitResult
from flows.results import load as load
from flows.training import evidence as evidence
from flows.training import fit as fit
from flows.training import fit_ensemble as fit_ensemble
from flows.training import fit_to_density as fit_to_density
from flows.training import select as select

__version__ = "0.1.0"
_interrupts.as_usual()

if _typing.TYPE_CHECKING:
    from flows import interop as interop
    from flows import large as large
    from flows import sbi as sbi
    from flows import sklearn as sklearn
    from flows import tables as tables
else:

    def __getattr__(name):
        """`flows.tables`, `flows.sbi`, `flows.large`, `flows.sklearn` and `flows.interop` are imported when they are first
        named. A name of another library is told what it is called here."""
        if name in ("interop", "large", "sbi", "sklearn", "tables"):
            return _importlib.import_module(f"flows.{name}")
        message = f"module {__name__!r} has no attribute {name!r}"
        if name[:1] == "_":
            raise AttributeError(message)
        if (new := _new_name(name)) is not None:
            return getattr(_importlib.import_module("flows"), new)
        whose, called = _importlib.import_module("flows.elsewhere").CALLED.get(name, ("", ""))
        if not called:
            raise AttributeError(message)
        message += f", a name of {whose}; here it is {called}"
        raise AttributeError(message, name=name, obj=None)  # so that Python guesses no other name


_ROOMS = (
    "conditionals",
    "conditioners",
    "datasets",
    "diagnostics",
    "mcmc",
    "models",
    "objectives",
    "training",
    "transformers",
)  # which have public names of their own
__all__ = [name for name in globals() if name[0] != "_" and (name in _ROOMS or not isinstance(globals()[name], _Module))]
