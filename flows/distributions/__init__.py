"""Distributions: bases, mixtures, joins, flows."""

from flows.distributions.flow import Flow
from flows.distributions.gmm import GMM
from flows.distributions.joint import Joint
from flows.distributions.location_scale import Laplace, Logistic, StudentT
from flows.distributions.mixture import Mixture
from flows.distributions.normal import Normal
from flows.distributions.standardized_context import StandardizedContext
from flows.distributions.uniform import Uniform

__all__ = ["GMM", "Flow", "Joint", "Laplace", "Logistic", "Mixture", "Normal", "StandardizedContext", "StudentT", "Uniform"]
