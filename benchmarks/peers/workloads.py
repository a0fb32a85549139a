"""The flows to be timed, told without any library, and what a library's build of one offers."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple


class Work(NamedTuple):
    kind: str  # "coupling" or "autoregressive"
    transformer: str  # "affine" or "spline"
    d: int
    layers: int
    hidden: tuple[int, ...]
    bins: int = 8
    bound: float = 3.0

    @property
    def per_feature(self) -> int:
        """How many parameters the transformer takes for each feature."""
        return 2 if self.transformer == "affine" else 3 * self.bins - 1

    @property
    def widths(self) -> tuple[int, ...]:
        """A conditioner's inputs, hidden layers and outputs."""
        inputs, transformed = (self.d // 2, self.d - self.d // 2) if self.kind == "coupling" else (self.d, self.d)
        return (inputs, *self.hidden, self.per_feature * transformed)

    @property
    def num_params(self) -> int:
        """The weights, masked ones included, and biases of all layers."""
        return self.layers * sum((before + 1) * after for before, after in pairwise(self.widths))


class Model(NamedTuple):
    step: Callable[[Any], Any]  # a batch -> its loss, once the parameters are updated
    log_prob: Callable[[Any], Any]
    sample: Callable[[int], Any]
    num_params: int
    train: Callable[[Any, float], Any] | None = None  # a step with clipped gradients, at this rate
    snapshot: Callable[[], Any] | None = None
    restore: Callable[[Any], None] | None = None


CLIP = 5.0  # the largest norm of a gradient, in `train`
WORKLOADS = {
    "RealNVP d43": Work("coupling", "affine", 43, 10, (100, 100)),
    "NSF coupling d21": Work("coupling", "spline", 21, 10, (128, 128)),
    "MAF d21": Work("autoregressive", "affine", 21, 5, (128, 128)),
    "NSF autoregressive d21": Work("autoregressive", "spline", 21, 5, (128, 128)),
    "MAF d63": Work("autoregressive", "affine", 63, 10, (512, 512)),
}

# On the six columns of the POWER set.
POWER = {
    "MAF": Work("autoregressive", "affine", 6, 10, (128, 128)),
    "RealNVP": Work("coupling", "affine", 6, 10, (128, 128)),
    "NSF": Work("coupling", "spline", 6, 10, (128, 128)),
}
