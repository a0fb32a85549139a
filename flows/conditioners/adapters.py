"""Networks of other libraries as conditioners: Equinox, Flax NNX, Flax Linen and stax.

Each adapter takes a function that makes the network, as only the layer that uses it knows its sizes. Params are the floating
arrays of the network in plain containers. The rest of the network, its structure, comes from making it again with an abstract
key when its function is traced: nothing is computed twice, and no result can depend on the key of a particular init.

A function cannot be written to a file. To save a model, put the adapter into a constructor, as in the example of `FromStax`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from operator import getitem
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditioners.base import conditioner
from flows.core import Array, FlowsError, as_event, check_function, check_takes, lacking, named_by, refuse_argument, select


@conditioner
def FromEquinox(make: Callable):
    """A network of Equinox: a callable module that maps one row to one row.

    Its `inference` flags are off with `train=True` and on otherwise. If its `__call__` names `key`, a call with `rng` passes a
    separate key to each row. A context is appended to the inputs.

    Args:
        make: `make(key, input_dim, output_dim)` returns the module, which is mapped over the batch: (input_dim,) to
            (output_dim,). For events of several axes both dims are tuples, channels last, where Equinox has them first.

    Params:
        The arrays of the module in nested dicts by the names of its fields, entries of sequences by their numbers. Arrays in a
        field named `fixed` do not train. NumPy arrays are constants, not params.

    Errors:
        ModuleNotFoundError: Equinox is not installed.
        FlowsError: a module with state (BatchNorm, SpectralNorm) or with arrays that are not floating; dropout with
            `train=True` and no `rng`.

    Example:
        >>> import equinox as eqx, flows
        >>> net = flows.conditioners.FromEquinox(lambda key, inputs, outputs: eqx.nn.MLP(inputs, outputs, 64, 2, key=key))
        >>> params, direct_fun, inverse_fun = flows.Coupling(net)(0, 5)
        >>> params["conditioner"]["layers"]["0"]["weight"].shape
        (64, 2)
    """
    with _extra("FromEquinox", "equinox"):
        import equinox as eqx
    _check_make("FromEquinox", make, eqx.Module, "key, input_dim, output_dim")
    stateful = (eqx.nn.State, eqx.nn.StateIndex)

    def net(rng, input_dim, output_dim):
        def split(key):
            module = make(key, input_dim, output_dim)
            nodes = jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, stateful))
            _check_stateless("FromEquinox", [type(node).__name__ for node in nodes if isinstance(node, stateful)])
            _check_made("FromEquinox", module, callable(module), "a callable module")
            arrays, rest = eqx.partition(module, lambda leaf: isinstance(leaf, jax.Array))
            return arrays, lambda: rest  # a function hides the NumPy arrays, of which Equinox would make shapes too

        def apply_fun(params, inputs, rng=None, train=False):
            shapes, rest = eqx.filter_eval_shape(split, jax.random.key(0))
            arrays = jax.tree_util.tree_map_with_path(lambda path, _: reduce(getitem, _names(path), params), shapes)
            module = eqx.nn.inference_mode(eqx.combine(arrays, rest()), not train)
            keyed = rng is not None and named_by(module, ("key",))
            with _asking_for_rng("FromEquinox", rng, train, RuntimeError):
                if not keyed:
                    return jax.vmap(module)(inputs)
                return jax.vmap(lambda row, key: module(row, key=key))(inputs, jax.random.split(rng, inputs.shape[0]))

        leaves = jax.tree_util.tree_leaves_with_path(split(rng)[0])
        return _floating("FromEquinox", _nested([(_names(path), leaf) for path, leaf in leaves])), apply_fun

    return net


@conditioner
def FromNNX(make: Callable):
    """A network of Flax NNX: a module that maps a batch to a batch.

    It is in its mode `train()` with `train=True` and `eval()` otherwise, with random streams made of `rng`. A context is
    appended to the inputs.

    Args:
        make: `make(rngs, input_dim, output_dim)` returns the module, which maps (batch, input_dim) to (batch, output_dim).
            For events of several axes both dims are tuples, channels last.

    Params:
        The module's variables of type `nnx.Param` in nested dicts by its attributes, as `nnx.to_pure_dict` returns them.
        Variables in an attribute named `fixed` do not train.

    Errors:
        ModuleNotFoundError: Flax is not installed.
        FlowsError: a module with state other than params and random streams (BatchNorm), or with params that are not floating;
            dropout with `train=True` and no `rng`.

    Example:
        >>> import flows
        >>> from flax import nnx
        >>> net = flows.conditioners.FromNNX(lambda rngs, inputs, outputs: nnx.Linear(inputs, outputs, rngs=rngs))
        >>> params, direct_fun, inverse_fun = flows.Coupling(net)(0, 5)
        >>> params["conditioner"]["kernel"].shape
        (2, 6)
    """
    with _extra("FromNNX", "flax"):
        from flax import nnx
    _check_make("FromNNX", make, nnx.Module, "rngs, input_dim, output_dim")

    def net(rng, input_dim, output_dim):
        def split(key):
            module = make(nnx.Rngs(key), input_dim, output_dim)
            _check_made("FromNNX", module, isinstance(module, nnx.Module), "a flax.nnx.Module")
            return nnx.split(module, nnx.Param, nnx.RngState, ...)

        def apply_fun(params, inputs, rng=None, train=False):
            graph, variables, streams, _ = jax.eval_shape(split, jax.random.key(0))
            if train and rng is None and jax.tree.leaves(streams):
                raise FlowsError(ASKING.format(name="FromNNX", what="it has random streams"))
            nnx.replace_by_pure_dict(variables, params)
            module = nnx.merge(graph, variables, _streams(streams, jax.random.key(0) if rng is None else rng))
            if train:
                module.train()
            else:
                module.eval()
            return module(inputs)

        _, variables, _, rest = split(rng)
        state = jax.tree.leaves(rest, is_leaf=lambda node: isinstance(node, nnx.Variable))
        _check_stateless("FromNNX", [type(variable).__name__ for variable in state])
        return _floating("FromNNX", nnx.to_pure_dict(variables)), apply_fun

    return net


@conditioner
def FromLinen(make: Callable):
    """A network of Flax Linen: a module that maps a batch to a batch.

    If its `__call__` names `train`, or `deterministic`, the opposite, it gets them; `rng` is its stream "dropout". A context is
    appended to the inputs.

    Args:
        make: `make(output_dim)` returns the module, which maps (batch, input_dim) to (batch, output_dim). For events of
            several axes both dims are tuples, channels last.

    Params:
        The module's collection "params", nested dicts. Params of a submodule named `fixed` do not train.

    Errors:
        ModuleNotFoundError: Flax is not installed.
        FlowsError: a module with collections other than "params" (BatchNorm), or with params that are not floating; dropout
            with `train=True` and no `rng`.

    Example:
        >>> import flows
        >>> from flax import linen as nn
        >>> net = flows.conditioners.FromLinen(lambda outputs: nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(outputs)]))
        >>> params, direct_fun, inverse_fun = flows.Coupling(net)(0, 5)
        >>> params["conditioner"]["layers_0"]["kernel"].shape
        (2, 64)
    """
    with _extra("FromLinen", "flax"):
        from flax import errors, linen
    _check_make("FromLinen", make, linen.Module, "output_dim")

    def mode(module, train):
        names = named_by(module.__call__, ("train", "deterministic"))
        return select(names, train=train, deterministic=not train)

    def net(rng, input_dim, output_dim):
        def apply_fun(params, inputs, rng=None, train=False):
            module, rngs = make(output_dim), {} if rng is None else {"dropout": rng}
            with _asking_for_rng("FromLinen", rng, train, errors.InvalidRngError):
                return module.apply({"params": params}, inputs, rngs=rngs, **mode(module, train))

        module = make(output_dim)
        _check_made("FromLinen", module, isinstance(module, linen.Module), "a flax.linen.Module")
        variables = linen.meta.unbox(module.init(rng, jnp.zeros((1, *as_event(input_dim))), **mode(module, False)))
        _check_stateless("FromLinen", sorted(set(variables) - {"params"}))
        return _floating("FromLinen", variables.get("params", {})), apply_fun

    return net


@conditioner
def FromStax(make: Callable):
    """A network of `jax.example_libraries.stax`: a pair `(init_fun, apply_fun)`.

    A context is appended to the inputs. `Dropout` and `BatchNorm` of stax are refused: the first cannot be switched off after
    training, and with the second a row's outputs would depend on the other rows of the batch.

    Args:
        make: `make(output_dim)` returns the pair: `init_fun(rng, input_shape)` returns the output shape and the params, and
            `apply_fun(params, inputs)` maps (batch, input_dim) to (batch, output_dim). For events of several axes both dims
            are tuples, channels last.

    Params:
        The params of the pair, tuples and lists.

    Errors:
        FlowsError: params that are not floating; a network that draws random numbers, or mixes rows.

    Example:
        >>> import flows
        >>> from jax.example_libraries import stax
        >>> net = flows.conditioners.FromStax(lambda outputs: stax.serial(stax.Dense(64), stax.Relu, stax.Dense(outputs)))
        >>> params, direct_fun, inverse_fun = flows.Coupling(net)(0, 5)

        A lambda cannot be written to a file; a constructor that you write can:

        >>> @flows.conditioner
        ... def Wide(width=64):
        ...     def make(outputs):
        ...         return stax.serial(stax.Dense(width), stax.Relu, stax.Dense(outputs))
        ...     return flows.conditioners.FromStax(make)
        >>> flows.Coupling(Wide(128)) == flows.Coupling(Wide(128))        # flows.load(path, constructors=[Wide])
        True
    """
    _check_make("FromStax", make, tuple, "output_dim")

    def net(rng, input_dim, output_dim):
        try:
            pair = make(output_dim)
        except TypeError as error:
            raise TypeError(f"FromStax: make({output_dim!r}) raises TypeError: {error}") from error
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2 and all(map(callable, pair))
        _check_made("FromStax", pair, is_pair, "a pair (init_fun, apply_fun)")
        with jax.ensure_compile_time_eval():
            _check_rows_apart("FromStax", pair, as_event(input_dim))
        return _floating("FromStax", pair[0](rng, (-1, *as_event(input_dim)))[1]), pair[1]

    return net


def _check_rows_apart(name: str, pair: tuple, event: tuple) -> None:
    """Refuse a network whose output for a row depends on the other rows, or on a key."""
    key, rows = jax.random.key(0), jax.random.normal(jax.random.key(1), (3, *event))
    params = pair[0](key, (-1, *event))[1]
    try:
        together, alone = pair[1](params, rows)[:1], pair[1](params, rows[:1])
    except ValueError as error:
        raise FlowsError(
            f"{name}: the network needs more than params and inputs ({str(error)[:60]}); leave Dropout out"
        ) from error
    if isinstance(together, jax.core.Tracer):  # jax 0.7 still traces here, and the rows cannot be compared
        return
    if not np.allclose(together, alone, rtol=1e-3, atol=1e-3 * float(jnp.abs(together).max())):
        raise FlowsError(f"{name}: a row's outputs depend on the other rows of the batch, as with BatchNorm; leave it out")


ASKING = "{name}: with train=True the network draws random numbers ({what}); give rng="


@contextmanager
def _extra(name: str, library: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(lacking(name, library, "networks")) from error


@contextmanager
def _asking_for_rng(name: str, rng: Any, train: bool, kind: type[Exception]) -> Iterator[None]:
    """Turn the error of a library that misses a key into an error that says how to give one."""
    try:
        yield
    except kind as error:
        if rng is not None or not train:
            raise
        raise FlowsError(ASKING.format(name=name, what=str(error).strip()[:100])) from error


def _check_make(name: str, make: Any, module: type, parameters: str) -> None:
    expected = f"a function that makes the network: lambda {parameters}: ..."
    if isinstance(make, module):
        refuse_argument(make, f"{name}: make", expected)
    check_function(make, f"{name}: make", expected)
    check_takes(make, f"make({parameters})", f"{name}: make")


def _check_made(name: str, made: Any, passed: bool, expected: str) -> None:
    if not passed:
        raise TypeError(f"{name}: make returned {made!r:.80}; expected {expected}")


def _check_stateless(name: str, state: list[str]) -> None:
    if state:
        raise FlowsError(
            f"{name}: the network keeps state other than its params: {', '.join(dict.fromkeys(state))}; expected a function of "
            "params and inputs alone. Use LayerNorm or GroupNorm in place of BatchNorm, or flows.BatchNorm between layers"
        )


def _floating(name: str, params: Any) -> Any:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise FlowsError(
                f"{name}: the network's {'.'.join(_names(path))} has dtype {leaf.dtype}; params are float arrays. Keep "
                "constants as NumPy arrays, and let rng= bring the keys"
            )
    return params


def _names(path: tuple) -> list[str]:
    return [jax.tree_util.keystr((step,), simple=True) for step in path]


def _nested(named: list[tuple[list[str], Array]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for names, leaf in named:
        reduce(lambda inner, name: inner.setdefault(name, {}), names[:-1], tree)[names[-1]] = leaf
    return tree


def _streams(abstract: Any, key: Array) -> Any:
    """Random streams of these shapes, from one key: each starts with a separate key and a count of 0."""
    leaves, treedef = jax.tree.flatten(abstract)
    keys = jax.random.split(key, max(len(leaves), 1))

    def start(leaf, key):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.split(key, leaf.shape) if is_key else jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.unflatten(treedef, [start(leaf, key) for leaf, key in zip(leaves, keys, strict=False)])
