"""For the tests of `flows.check`: triples that NumPy makes, which cost no compiling, and results without a fit."""

import numpy as np

from flows.diagnostics.arrays import generator
from flows.results import FitResult
from flows.results.held_out import Kept


def triple(log_p, draw):
    """`log_p(x, context)` of float64 rows and `draw(random, n, context)` as (params, log_pdf, sample)."""

    def log_pdf(params, x, context=None):
        return log_p(np.asarray(x, np.float64), None if context is None else np.asarray(context, np.float64))

    def sample(rng, params, n, context=None):
        return draw(generator(rng), n, None if context is None else np.asarray(context, np.float64))

    return {}, log_pdf, sample


def normal(loc=0.0, scale=1.0, d=2):
    """Independent normals; `loc` may be a function of the context."""

    def of(context):
        return loc(context) if callable(loc) else loc

    def log_p(x, context):
        z = (x - of(context)) / scale
        return -0.5 * (z**2 + np.log(2 * np.pi)).sum(1) - np.log(np.broadcast_to(scale, (d,))).sum()

    return triple(log_p, lambda random, n, context: of(context) + scale * random.normal(size=(n, d)))


def density(rows, scale):
    """A kernel density: normals of this spread around rows."""

    def log_p(x, context):
        squares = ((x[:, None] - rows) ** 2).sum(2) / scale**2
        return np.logaddexp.reduce(-0.5 * squares, 1) - np.log(len(rows) * 2 * np.pi * scale**2)

    return triple(
        log_p, lambda random, n, context: rows[random.integers(len(rows), size=n)] + scale * random.normal(size=(n, 2))
    )


def made(init_fun, params, d, context_dim=0, kept=None, kind=FitResult, **more):
    """The result that a fit would have ended with, had it found these params; `kept` are rows held out, and their context."""
    functions = init_fun(0, d, context_dim=context_dim)[1:]
    kept = None if kept is None else Kept(*kept)
    return kind(params, *functions, init_fun, d, context_dim, kept=kept, **more)
