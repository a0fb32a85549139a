"""Combinators, bijections of bijections: `Serial`, `Repeat`, `Reversible`, `Invert`, `FactorOut`, `Through`,
`ConditionalCoupling`."""

from flows.compose.conditional import ConditionalCoupling as ConditionalCoupling
from flows.compose.depth import Repeat as Repeat
from flows.compose.depth import Reversible as Reversible
from flows.compose.inverses import Invert as Invert
from flows.compose.inverses import Through as Through
from flows.compose.serial import FactorOut as FactorOut
from flows.compose.serial import Serial as Serial
from flows.compose.serial import first_nonfinite_layer as first_nonfinite_layer
from flows.compose.serial import joined as joined
from flows.compose.serial import still as still
