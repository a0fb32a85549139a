"""Six probabilistic programs in NumPyro, and a guide of one of them at work: what `guides.py` and its peers share."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.reparam import LocScaleReparam

STEPS, CHUNK, RATE, PARTICLES = 3_000, 100, 1e-2, 16
SCORED, BATCHES = 1_000, 10  # draws of a score, and scores of the last one
EFFECTS = np.array(
    [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], np.float32
)  # of coaching in eight schools (Rubin, 1981), in points
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], np.float32)


def schools():
    """Eight schools, centred: theta ~ N(mu, tau), mu ~ N(0, 5), tau ~ HalfCauchy(5)."""
    mu, tau = numpyro.sample("mu", dist.Normal(0.0, 5.0)), numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, ERRORS), obs=EFFECTS)


def funnel():
    """Neal's funnel in 10 dimensions."""
    neck = numpyro.sample("neck", dist.Normal(0.0, 3.0))
    numpyro.sample("x", dist.Normal(jnp.zeros(9), jnp.exp(neck / 2)).to_event(1))


def bananas():
    """Five bananas: a ~ N(0, 2), b ~ N(a^2 / 2, 1)."""
    with numpyro.plate("banana", 5):
        a = numpyro.sample("a", dist.Normal(0.0, 2.0))
        numpyro.sample("b", dist.Normal(jnp.square(a) / 2, 1.0))


def cancer(table: Path) -> Callable:
    """Logistic regression of the 569 rows and 30 columns of scikit-learn's breast cancer table, under N(0, 2.5)."""
    with np.load(table) as arrays:
        x, y = jnp.asarray(arrays["x"], jnp.float32), jnp.asarray(arrays["y"])

    def model():
        intercept = numpyro.sample("intercept", dist.Normal(0.0, 2.5))
        slopes = numpyro.sample("slopes", dist.Normal(jnp.zeros(x.shape[1]), 2.5).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=intercept + x @ slopes), obs=y)

    return model


def volatility() -> Callable:
    """Stochastic volatility of 40 returns: a random walk of log-variances, and its scale."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(0.3 * rng.normal(size=40))
    returns = jnp.asarray(np.exp(walk / 2) * rng.normal(size=40), jnp.float32)

    def model():
        scale = numpyro.sample("scale", dist.LogNormal(-1.0, 1.0))
        h = numpyro.sample("h", dist.GaussianRandomWalk(scale, num_steps=40))
        numpyro.sample("returns", dist.Normal(0.0, jnp.exp(h / 2)).to_event(1), obs=returns)

    return model


PROGRAMS: dict[str, Callable[[Path], Callable]] = {
    "eight schools": lambda table: schools,
    "non-centred": lambda table: numpyro.handlers.reparam(schools, config={"theta": LocScaleReparam(0.0)}),
    "breast cancer": cancer,
    "funnel": lambda table: funnel,
    "bananas": lambda table: bananas,
    "volatility": lambda table: volatility(),
}


class Trained:
    """A guide in training, by SVI with Adam, whose rate falls from 0.01 to 0 along a cosine: 3,000 steps of 16 draws."""

    def __init__(self, model: Callable, guide: Callable):
        began = time.process_time()
        rate = optax.cosine_decay_schedule(RATE, STEPS)
        self.svi = SVI(model, guide, optax.adam(rate), Trace_ELBO(num_particles=PARTICLES))
        self.state = self.svi.init(jax.random.key(0))

        def chunk(state):
            return jax.lax.scan(lambda state, _: self.svi.update(state), state, None, length=CHUNK)

        self._chunk = jax.jit(chunk).lower(self.state).compile()
        jax.block_until_ready(self._chunk(self.state))
        self.first_call = time.process_time() - began
        step = jax.jit(self.svi.update).lower(self.state).compile()
        self.bytes = step.memory_analysis().temp_size_in_bytes
        score = Trace_ELBO(num_particles=SCORED)
        self._score = jax.jit(lambda params, key: -score.loss(key, params, model, guide))

    def start(self, seed: int) -> None:
        self.state = self.svi.init(jax.random.key(seed))

    def advance(self) -> None:
        """A hundred steps."""
        self.state, _ = jax.block_until_ready(self._chunk(self.state))

    def step(self) -> float:
        """The seconds of one core that a step takes, among a thousand in a row, as `SVI.run` takes them."""
        began = time.process_time()
        for _ in range(1_000 // CHUNK):
            self.advance()
        return (time.process_time() - began) / 1_000

    def elbo(self) -> float:
        return float(self._score(self.svi.get_params(self.state), jax.random.key(100)))

    def last(self) -> tuple[float, float]:
        """The ELBO of 10,000 draws, and its standard error."""
        params = self.svi.get_params(self.state)
        scores = np.array([float(self._score(params, jax.random.key(200 + i))) for i in range(BATCHES)])
        return float(scores.mean()), float(scores.std(ddof=1) / BATCHES**0.5)
