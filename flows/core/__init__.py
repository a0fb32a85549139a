"""The contract: triples, constructor values, lifting, trainable and fixed params, calibration."""

from flows.core.arrays import Array, Shape
from flows.core.authors import (
    Bijection,
    BijectionInit,
    Composite,
    Distribution,
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
from flows.core.checks import check_fits, check_widths, finite, numbers, positive, positive_int
from flows.core.elements import (
    ConditionerInit,
    Leading,
    Network,
    Transformer,
    as_network,
    check_conditioner,
    check_transformer,
    conditioner,
    transformer,
)
from flows.core.errors import FitError, FlowsError
from flows.core.fingerprint import clear_caches
from flows.core.loops import in_pieces, turn, unfused
from flows.core.params import calibrate, stacked, trainable, unstacked
from flows.core.parts import BijectionPart, DistributionPart, Given, measured_output
from flows.core.values import Value, constructor, from_json, to_json

__all__ = [
    "as_network",
    "Array",
    "Bijection",
    "bijection",
    "BijectionInit",
    "BijectionPart",
    "build_bijection",
    "build_distribution",
    "calibrate",
    "check_conditioner",
    "check_fits",
    "check_layers",
    "check_transformer",
    "check_widths",
    "clear_caches",
    "combinator",
    "Composite",
    "conditioner",
    "ConditionerInit",
    "constructor",
    "Distribution",
    "distribution",
    "DistributionInit",
    "DistributionPart",
    "finite",
    "FitError",
    "FlowsError",
    "from_json",
    "Given",
    "in_pieces",
    "init_keywords",
    "InitFun",
    "Leading",
    "measured_output",
    "Network",
    "numbers",
    "positive",
    "positive_int",
    "Shape",
    "stacked",
    "to_json",
    "trainable",
    "Transformer",
    "transformer",
    "turn",
    "unfused",
    "unstacked",
    "Value",
]
