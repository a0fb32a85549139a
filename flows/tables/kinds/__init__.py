"""Kinds of columns, a file for each sort. A new kind is a class in a new file, and its name in this one."""

from flows.tables.kinds.angle import Circular
from flows.tables.kinds.base import Entries, Ignored, Kind
from flows.tables.kinds.category import Category, Constant, Ordinal
from flows.tables.kinds.date import DateTime
from flows.tables.kinds.number import Integer, Real

KINDS: dict[str, type[Kind]] = {
    kind.__name__: kind for kind in (Real, Integer, Category, Ordinal, Circular, DateTime, Constant, Ignored)
}
__all__ = ["KINDS", "Category", "Circular", "Constant", "DateTime", "Entries", "Ignored", "Integer", "Kind", "Ordinal", "Real"]
