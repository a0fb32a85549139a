"""Is the density right? One call, with a verdict for each question, for any fitted distribution."""

from flows.checks.check import check
from flows.checks.verdicts import Check, Checks

__all__ = ["Check", "Checks", "check"]
