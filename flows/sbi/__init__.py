"""From a simulator to a posterior that has been checked.

prior = flows.sbi.Prior({"rate": flows.Uniform(0.1, 2.0), "shift": (flows.Normal(), 3)})
sims = flows.sbi.simulate(0, prior, simulator, 10_000)          # in JAX, or in processes with workers=
posterior = flows.sbi.fit_posterior(1, prior, sims)             # a FitResult
posterior.draw(2, 1_000, context=x)
flows.sbi.check_observation(3, posterior, sims, x, simulator)   # is x like what the simulator makes?
"""

from flows.sbi.observation import check_observation
from flows.sbi.posterior import fit_posterior, log_density
from flows.sbi.prior import Prior, truncated
from flows.sbi.simulate import simulate
from flows.sbi.simulations import Simulations, as_sets

__all__ = ["Prior", "Simulations", "as_sets", "check_observation", "fit_posterior", "log_density", "simulate", "truncated"]
