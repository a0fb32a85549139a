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
    build_bijection,
    build_distribution,
    check_layers,
    combinator,
    distribution,
    init_keywords,
)
from flows.core.errors import FitError, FlowsError
from flows.core.params import calibrate, stacked, trainable, unstacked
from flows.core.parts import BijectionPart, DistributionPart, measured_output
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
    "Shape",
    "Value",
    "bijection",
    "build_bijection",
    "build_distribution",
    "calibrate",
    "check_fits",
    "check_layers",
    "check_widths",
    "clear_caches",
    "combinator",
    "constructor",
    "distribution",
    "finite",
    "from_json",
    "in_pieces",
    "init_keywords",
    "iteration",
    "measured_output",
    "numbers",
    "positive",
    "positive_int",
    "stacked",
    "to_json",
    "trainable",
    "unfused",
    "unstacked",
]
