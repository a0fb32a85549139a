"""Tables of any library that narwhals knows: numbers, categories, counts, angles and dates, each as what it is.

schema = flows.tables.infer_schema(frame)      # kinds of columns; prints as a table
rows = schema.encode(frame)                    # float64, (rows, d): codes, angles, numbers
frame = schema.decode(rows)                    # the same library, order and dtypes

result = flows.tables.fit(0, frame)            # a TableResult
result.log_prob(frame), result.draw(1, 10), result.p_value(frame)
result.contributions(frame)                    # which column makes a row odd
"""

from flows.tables.fields import Rows
from flows.tables.files import load
from flows.tables.fit import fit
from flows.tables.infer import infer_schema
from flows.tables.kinds import Category, Circular, Constant, DateTime, Ignored, Integer, Kind, Ordinal, Real
from flows.tables.result import TableResult
from flows.tables.schema import Schema

__all__ = [
    "Category",
    "Circular",
    "Constant",
    "DateTime",
    "Ignored",
    "Integer",
    "Kind",
    "Ordinal",
    "Real",
    "Rows",
    "Schema",
    "TableResult",
    "fit",
    "infer_schema",
    "load",
]
