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
from flows.core.elements import (
    ConditionerInit,
    Leading,
    Network,
    Transformer,
    check_conditioner,
    check_transformer,
    check_widths,
    conditioner,
    positive,
    positive_int,
    transformer,
)
from flows.core.errors import FlowsError
from flows.core.fingerprint import clear_caches
from flows.core.params import calibrate, trainable
from flows.core.parts import BijectionPart, DistributionPart, Given, measured_output
from flows.core.values import Value, constructor, from_json, to_json

__all__ = [
    "transformer",
    "positive_int",
    "positive",
    "conditioner",
    "Transformer",
    "Network",
    "Leading",
    "ConditionerInit",
    "Array",
    "Bijection",
    "BijectionInit",
    "BijectionPart",
    "Composite",
    "Distribution",
    "DistributionInit",
    "DistributionPart",
    "FlowsError",
    "Given",
    "InitFun",
    "Shape",
    "Value",
    "bijection",
    "build_bijection",
    "build_distribution",
    "calibrate",
    "check_layers",
    "check_conditioner",
    "check_transformer",
    "check_widths",
    "clear_caches",
    "combinator",
    "constructor",
    "distribution",
    "from_json",
    "init_keywords",
    "measured_output",
    "to_json",
    "trainable",
]
