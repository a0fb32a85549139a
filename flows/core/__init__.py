"""The ground floor: the contract, how layers are written, and what makes them fast. `contract.py` is the place to begin.

An author writes functions of one event (`decorators.py`); they are lifted to batches (`lifting.py`) and become a part
(`parts.py`), which combinators compose. `publish.py` makes of a part the functions that a user calls.
"""

from flows.core.caching import clear_caches as clear_caches
from flows.core.constructors import Value as Value
from flows.core.constructors import constructor as constructor
from flows.core.constructors import from_json as from_json
from flows.core.constructors import to_json as to_json
from flows.core.contract import Array as Array
from flows.core.contract import Bijection as Bijection
from flows.core.contract import Distribution as Distribution
from flows.core.contract import Given as Given
from flows.core.contract import Params as Params
from flows.core.contract import Shape as Shape
from flows.core.cpu_loops import in_pieces as in_pieces
from flows.core.cpu_loops import iteration as iteration
from flows.core.cpu_loops import unfused as unfused
from flows.core.decorators import BijectionInit as BijectionInit
from flows.core.decorators import DistributionInit as DistributionInit
from flows.core.decorators import InitFun as InitFun
from flows.core.decorators import bijection as bijection
from flows.core.decorators import bijection_part as bijection_part
from flows.core.decorators import check_layers as check_layers
from flows.core.decorators import combinator as combinator
from flows.core.decorators import distribution as distribution
from flows.core.decorators import distribution_part as distribution_part
from flows.core.decorators import initialize as initialize
from flows.core.decorators import part_of as part_of
from flows.core.errors import FitError as FitError
from flows.core.errors import FlowsError as FlowsError
from flows.core.params import remeasure as remeasure
from flows.core.params import stacked as stacked
from flows.core.params import trainable as trainable
from flows.core.params import unstacked as unstacked
from flows.core.parts import COLUMN as COLUMN
from flows.core.parts import BijectionPart as BijectionPart
from flows.core.parts import Cdf as Cdf
from flows.core.parts import DistributionPart as DistributionPart
from flows.core.parts import Part as Part
from flows.core.parts import exact_log_dets as exact_log_dets
from flows.core.parts import shared as shared
from flows.core.revision import revise as revise
from flows.core.structure import Composite as Composite
from flows.core.structure import Piece as Piece
from flows.core.validation import check_fits as check_fits
from flows.core.validation import check_widths as check_widths
from flows.core.validation import finite as finite
from flows.core.validation import numbers as numbers
from flows.core.validation import positive as positive
from flows.core.validation import positive_int as positive_int
