"""Is the density right? One call, and a verdict for each question, on any fitted distribution."""

from flows.checks.check import check
from flows.checks.checks import Checks
from flows.checks.verdicts import Check

__all__ = ["Check", "Checks", "check"]
