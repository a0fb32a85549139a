"""The rows that a fit is given, read, and split into those to train on and those held out."""

from typing import Any

import numpy as np

from flows.core import Array
from flows.results.frames import named_apart
from flows.training.data.arrays import read_rows, read_validation
from flows.training.data.copies import groups_of
from flows.training.data.splitting import split
from flows.training.data.streams import iterated, mapped
from flows.training.data.table import Data, shares, take
from flows.training.options import Options


def read(data: Any, options: Options, key: Array) -> Data:
    """Read what a fit is given: arrays and tables whole, of a stream the rows that a first look needs."""
    if isinstance(data, np.memmap):
        return mapped(data, options, key)
    if hasattr(data, "__iter__") and not (
        isinstance(data, list | tuple | str | bytes | dict | set) or hasattr(data, "__array__") or hasattr(data, "to_numpy")
    ):
        return iterated(data, options)
    return read_arrays(data, options, key)


def read_arrays(data: Any, options: Options, key: Array) -> Data:
    """Read arrays or tables, and split them."""
    tables = named_apart(data, "fit: data"), named_apart(options.context, "fit: context")
    rows = read_rows(data, options.context, weights=options.weights)
    numbers, others = np.arange(len(rows.x)), None
    if rows.weights is not None:  # a row of weight 0 is as if it were not there
        numbers = np.flatnonzero(rows.weights)
    groups = groups_of((rows.x, rows.context))
    if options.share is None:
        held_out = read_validation(options.validation, rows, *tables)
    else:
        of_train, of_others = split(len(numbers), options.share, key, None if groups is None else groups[numbers])
        numbers, others = numbers[of_train], numbers[of_others]
        held_out = take(rows, others)
    return shares(rows, numbers, held_out, others, options, tables, groups)
