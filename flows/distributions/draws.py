"""Draws of a distribution together with their log-density. Family: Draws with their density."""

from collections.abc import Callable
from typing import Any

from flows.core import Array, Bijection, Params, joint_draw_of, warn_user


def sample_with_log_pdf(
    rng: Any, params: Params, distribution: Any, num_samples: int = 1, *, context: Any = None
) -> tuple[Array, Array]:
    """Draws x and log p(x), in one pass: the same draws as `sample` with the same rng.

    The density of a flow's draw comes from the noise y that it is made of, log p(x) = log p_base(y) - log|det dx/dy|, so f(x)
    is not computed again: an inverse autoregressive flow never runs its slow direction. Functions that do not come from a
    constructor's value are called one after the other, sample, then log_pdf.

    Where a layer rounds points (`Dequantize`) or adds noise to them, the density is the density of the point before this step:
    the continuous point that a value was rounded from. This is neither the value's mass nor its log_pdf, and a warning says so
    where `likelihood` is 'lower bound'.

    Args:
        rng: key or seed.
        params: of the distribution.
        distribution: its triple `(params, log_pdf, sample)`; the params in it are ignored.
        num_samples: number of draws.
        context: as sample takes it.

    Returns:
        Draws (num_samples, *event), and their log-density (num_samples,), in nats.

    Errors:
        TypeError: an argument that is not the triple of a distribution. Else the errors of sample and log_pdf.

    Example:
        >>> import flows, numpy as np
        >>> distribution = params, log_pdf, sample = flows.Flow(flows.IAF(2, hidden=(16,)))(0, 3)
        >>> x, log_p = flows.sample_with_log_pdf(1, params, distribution, 5)
        >>> np.allclose(log_p, log_pdf(params, x), atol=1e-4)
        True
    """
    log_pdf, sample = functions("sample_with_log_pdf", distribution)
    keywords = {} if context is None else {"context": context}
    joint = joint_draw_of(sample)
    if joint is not None and joint.log_pdf is log_pdf:
        if joint.likelihood == "lower bound":
            warn_user(
                "sample_with_log_pdf: the draws are rounded, or have noise on them, and the density is of the point "
                "before: not a mass, and not what log_pdf gives. Leave Dequantize out of a model whose draws are to be weighted"
            )
        return joint.draw(rng, params, num_samples, **keywords)
    x = sample(rng, params, num_samples, **keywords)
    return x, log_pdf(params, x, **keywords)


def functions(name: str, distribution: Any) -> tuple[Callable, Callable]:
    """log_pdf and sample of a triple."""
    if isinstance(distribution, Bijection):
        raise TypeError(f"{name}: got a bijection's triple; expected a distribution's triple, flows.Flow(bijection)(rng, d)")
    if not isinstance(distribution, tuple) or len(distribution) != 3 or not all(map(callable, distribution[1:])):
        raise TypeError(
            f"{name}: distribution is {distribution!r:.60}; expected the triple (params, log_pdf, sample) that "
            "init_fun(rng, input_dim) returns"
        )
    return distribution[1], distribution[2]
