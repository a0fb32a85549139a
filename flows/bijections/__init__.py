"""Bijections: one idea a file. `flows/__init__.py` lists the public ones."""

from flows.core import Support

__all__ = ["Support"]
