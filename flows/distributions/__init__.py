"""Distributions: bases, mixtures, flows."""

from flows.distributions.flow import Flow
from flows.distributions.normal import GMM, Normal

__all__ = ["GMM", "Flow", "Normal"]
