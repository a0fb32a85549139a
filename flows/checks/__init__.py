"""Is the density right? One call, and a verdict for each question, on any fitted distribution."""

from flows.checks.check import check
from flows.checks.verdicts import Check, Checks

__all__ = ["Check", "Checks", "check"]
