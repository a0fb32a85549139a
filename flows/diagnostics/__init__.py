"""Is this layer really a bijection? `verify` tells its author, property by property."""

from flows.diagnostics.properties import Trial, enable_x64
from flows.diagnostics.report import Property, Report, verify

__all__ = ["Property", "Report", "Trial", "enable_x64", "verify"]
