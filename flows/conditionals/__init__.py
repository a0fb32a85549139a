"""Kinds of columns for `AnySubset`: numbers, categories and angles, each given any others."""

from flows.conditionals.angle import Angle as Angle
from flows.conditionals.base import Kind as Kind
from flows.conditionals.base import check_kind as check_kind
from flows.conditionals.category import Category as Category
from flows.conditionals.number import Number as Number

__all__ = ["Angle", "Category", "Number"]
