"""The ground floor: the contract, how layers are written, and what makes them fast. `contract.py` is the place to begin.

An author writes functions of one event (`decorators.py`); they are lifted to batches (`lifting.py`) and become a part
(`parts.py`), which combinators compose. `publish.py` makes of a part the functions that a user calls.
"""

from flows.core.caching import clear_caches
from flows.core.constructors import Value, constructor, from_json, to_json
from flows.core.contract import Array, Bijection, Distribution, Given, Params, Shape
from flows.core.cpu_loops import in_pieces, iteration, unfused
from flows.core.decorators import (
    BijectionInit,
    Composite,
    DistributionInit,
    InitFun,
    bijection,
    bijection_part,
    check_layers,
    combinator,
    distribution,
    distribution_part,
    initialize,
    part_of,
)
from flows.core.errors import FitError, FlowsError
from flows.core.params import calibrate, stacked, trainable, unstacked
from flows.core.parts import BijectionPart, DistributionPart, Part, shared
from flows.core.validation import check_fits, check_widths, finite, numbers, positive, positive_int

__all__ = [
    "Array",
    "Bijection",
    "BijectionInit",
    "BijectionPart",
    "Composite",
    "Distribution",
    "DistributionInit",
    "DistributionPart",
    "FitError",
    "FlowsError",
    "Given",
    "InitFun",
    "Params",
    "Part",
    "Shape",
    "Value",
    "bijection",
    "bijection_part",
    "calibrate",
    "check_fits",
    "check_layers",
    "check_widths",
    "clear_caches",
    "combinator",
    "constructor",
    "distribution",
    "distribution_part",
    "finite",
    "from_json",
    "in_pieces",
    "initialize",
    "iteration",
    "numbers",
    "part_of",
    "positive",
    "positive_int",
    "shared",
    "stacked",
    "to_json",
    "trainable",
    "unfused",
    "unstacked",
]
