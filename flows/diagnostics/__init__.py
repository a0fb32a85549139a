"""Is this layer really a bijection? `verify` tells its author, property by property. What does a model say of images?"""

from flows.diagnostics.images import Bits, bits_per_dim, typicality
from flows.diagnostics.properties import Trial, enable_x64
from flows.diagnostics.report import Property, VerifyReport, verify

__all__ = ["Bits", "Property", "VerifyReport", "Trial", "bits_per_dim", "enable_x64", "typicality", "verify"]
