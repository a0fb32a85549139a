"""A digest that says whether two functions compute the same, such as optimizers made by equal calls."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from flows.core import holds_tracer


def program(function: Callable, *arguments: Any) -> str | None:
    """A digest of what a function computes of arguments of these shapes: equal digests, equal results.

    The derivatives by all floating arguments are part of it, as two functions may agree in their values alone. None is for
    what cannot be told: a program that holds a tracer or calls Python back, or that JAX can neither trace nor differentiate.
    """
    leaves, tree = jax.tree.flatten(arguments)
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def of_floats(*rest: Any) -> Callable:
        def run(*floats: Any) -> Any:
            iterators = iter(floats), iter(rest)
            return function(*jax.tree.unflatten(tree, [next(iterators[not is_float]) for is_float in floating]))

        return run

    def backward(floats: list, rest: list) -> Any:
        outputs, pull_back = jax.vjp(of_floats(*rest), *floats)
        return of_floats(*rest)(*floats), pull_back(outputs)

    def forward(floats: list, rest: list) -> Any:  # a loop whose length is not known has no other derivative
        return of_floats(*rest)(*floats), jax.jvp(of_floats(*rest), floats, floats)

    split = [[leaf for leaf, is_float in zip(leaves, floating, strict=True) if is_float is of] for of in (True, False)]
    for derivative in (backward, forward):
        try:
            jaxpr = jax.make_jaxpr(derivative)(*split)
            if holds_tracer(jaxpr):
                return None
            text = jax.jit(jaxpr_as_fun(jaxpr)).lower(*split[0], *split[1]).as_text()
        except (TypeError, ValueError, NotImplementedError, jax.errors.JAXTypeError, jax.errors.UnexpectedTracerError):
            continue
        if "callback" in text:
            return None
        return hashlib.sha256(text.encode()).hexdigest()  # constants, however large, are part of the text
    return None
