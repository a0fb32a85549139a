"""What a step of a fit to a density minimises."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from flows.core import Array, DistributionPart, functions_of
from flows.objectives import reverse_kl
from flows.training.loop.losses import HeldOut


class ReverseKL(NamedTuple):
    """What a step minimises, over draws of the model instead of rows. What is held out is noise, and is weighed on the host,
    by the program that draws for the figures, so that nothing else has to be compiled."""

    part: DistributionPart
    log_density: Callable
    num_samples: int
    estimator: str

    @property
    def draws(self) -> bool:
        return True

    @property
    def measures(self) -> bool:
        return False

    @property
    def of_rows(self) -> bool:
        return False

    @property
    def divisible(self) -> bool:
        return False

    @property
    def dealt(self) -> bool:
        return False

    @property
    def split(self) -> int:
        return 0

    def loss(self, params: Any, rows: Any, beta: Array, key: Array) -> Array:
        """At the power of the density, (1,), that is this step's."""
        triple = (params, *functions_of(self.part, params))
        return reverse_kl(params, triple, lambda x: beta * self.log_density(x), key, self.num_samples, estimator=self.estimator)

    def held_out(self, params: Any, figures: HeldOut, key: Array) -> HeldOut:
        return figures

    def cause(self, params: Any, key: Array, n: int) -> str:
        """Say what is not finite among so many draws."""
        log_pdf, sample = functions_of(self.part, params)
        x = sample(key, params, n)
        for name, values in (("the model's sample", x), ("log_density", self.log_density(x)), ("log_pdf", log_pdf(params, x))):
            finite = np.isfinite(np.asarray(values, float)).reshape(len(x), -1).all(1)
            if not finite.all():
                row = int(np.flatnonzero(~finite)[0])
                return f"{name} is {np.asarray(values)[row]} at a draw x = {np.asarray(x)[row]!s:.200}"
        return "draws and densities are finite, but a gradient or an update is not"
