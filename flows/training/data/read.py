"""Arrays, frames and streams become a `Split` of NumPy rows: those to train on and those held out, copies kept together. An
array or frame is read whole; of a stream only the rows that the checks need are read here. Folds divide the rows again later.
"""

from typing import Any

import numpy as np

from flows.core import Array
from flows.results.frames import collected, named_apart
from flows.training.data.copies import groups_of
from flows.training.data.streams import iterated, mapped
from flows.training.data.table import Split, Table, read_rows, read_validation, split_numbers
from flows.training.options import Options


def read(data: Any, options: Options, key: Array) -> Split:
    """Read what a fit is given: arrays and frames whole, of a stream the rows that a first look needs."""
    if isinstance(data, np.memmap):
        return mapped(data, options, key)
    if hasattr(data, "__iter__") and not (
        isinstance(data, list | tuple | str | bytes | dict | set) or hasattr(data, "__array__") or hasattr(data, "to_numpy")
    ):
        return iterated(data, options)
    return read_arrays(data, options, key)


def read_arrays(data: Any, options: Options, key: Array) -> Split:
    """Read arrays or frames, and split them."""
    data, context = collected(data, "fit: data"), collected(options.context, "fit: context")
    headers = named_apart(data, "fit: data"), named_apart(context, "fit: context")
    whole = Table.of(read_rows(data, context, weights=options.weights), headers)
    # A row of weight 0 is as if it were not there.
    numbers = whole.numbers if whole.weights is None else np.flatnonzero(whole.weights)
    groups = groups_of((whole.x, whole.context))
    if options.share is None:
        held_out = read_validation(options.validation, whole)
    else:
        of_train, of_others = split_numbers(len(numbers), options.share, key, None if groups is None else groups[numbers])
        numbers, held_out = numbers[of_train], whole.take(numbers[of_others])
    return Split.of(whole, numbers, held_out, options, groups)
