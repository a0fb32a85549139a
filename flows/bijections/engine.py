"""Parts that engines share: layers in which a network makes the parameters of transformers (coupling, autoregressive).

Features are in the leading axis: they are selected and reordered, and each is transformed by its own transformer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flows.conditioners.network import measured_by
from flows.core import Array, FlowsError, Given, Region, Support, as_context, naming, one_hot_codes, spend, unfused
from flows.transformers.base import Transformer, check_transformer

MOST_RUNS = 128
CHEAP = 2  # parameters of a transformer whose inverse is worth a copy of its inputs


def conditioned(net: Any, make: Callable) -> Callable:
    """The init_fun of a layer, or of a base, whose parameters are made by the network `net`.

    `make(key, shape, context, args)` returns its params and functions; context is a shape or None. It starts the network by
    `running`, and its functions take `**call`, for the network alone: the arguments among context, rng and train that the
    network names, which a `Layer` declares as its keywords.
    """

    def init_fun(rng, shape, context_dim=0, **args):
        return make(rng, shape, as_context(context_dim), Given(**args))

    return naming(init_fun, {"context_dim", *measured_by(net)})


def reorder(x: Array, order: np.ndarray) -> Array:
    """x[order], for a permutation known in advance.

    Split and concatenated instead of gathered, as the gradient of a gather is a scatter, which is slow.
    """
    starts = np.flatnonzero(np.diff(order, prepend=-2) != 1)  # of runs of neighbours
    if len(starts) <= 1:
        return x
    if len(starts) > MOST_RUNS:
        return jnp.take(x, order, axis=0, unique_indices=True)
    lengths = np.diff(starts, append=len(order))
    first = order[starts]
    by_source = np.argsort(first)
    pieces = jax.lax.split(x, [int(lengths[i]) for i in by_source])
    return jnp.concatenate([pieces[i] for i in np.argsort(by_source)])


def cut(x: Array, *sizes: int) -> list[Array]:
    """x in pieces along its leading axis."""
    return list(jax.lax.split(x, sizes)) if len(sizes) > 1 else [x]


class Columns:
    """A transformer for each row of x (features, ...): the same for all, or one of several kinds.

    theta is (num_params, features, ...), with the largest num_params of all kinds; a kind takes its first entries. Its
    other axes may have length 1, where rows share it. Weights, if any kind has some, are a tuple over kinds.
    """

    def __init__(self, transformers: tuple[Transformer, ...]):
        self.kinds = tuple(dict.fromkeys(transformers))
        self.num_params = max(kind.num_params for kind in self.kinds)
        self.kind_of = np.array([self.kinds.index(transformer) for transformer in transformers])
        self.order = np.argsort(self.kind_of, kind="stable")
        self.counts = tuple(int((self.kind_of == i).sum()) for i in range(len(self.kinds)))

    @property
    def has_weights(self) -> bool:
        return any(kind.has_weights for kind in self.kinds)

    def init(self, key: Array) -> tuple:
        """The weights of each kind, () for one without."""
        return tuple(kind.init(k) for kind, k in zip(self.kinds, jax.random.split(key, len(self.kinds)), strict=True))

    def direct(self, theta: Array, x: Array, weights: Any) -> tuple[Array, Array]:
        """y and log dy/dx."""
        return self._apply("direct", theta, x, weights)

    def inverse(self, theta: Array, y: Array, weights: Any) -> tuple[Array, Array]:
        """x and log dx/dy."""
        return self._apply("inverse", theta, y, weights)

    def inverse_of_one(self, feature: Array, theta: Array, y: Array, weights: Any, with_slope: bool) -> tuple[Array, Any]:
        """x of a single row of y (1, ...), the row of `feature`, an index known only at run time; and log dy/dx there."""
        weights = weights or ((),) * len(self.kinds)

        def branch(i: int) -> Any:
            kind = self.kinds[i]

            def one(theta: Array, y: Array) -> tuple[Array, Any]:
                theta = theta[: kind.num_params]
                x = kind.apply("inverse", theta, y, weights[i])[0]
                return x, kind.apply("direct", theta, x, weights[i])[1] if with_slope else ()

            return one

        branches = [branch(i) for i in range(len(self.kinds))]
        return (
            branches[0](theta, y)
            if len(branches) == 1
            else jax.lax.switch(jnp.asarray(self.kind_of)[feature], branches, theta, y)
        )

    def _apply(self, direction: str, theta: Array, x: Array, weights: Any) -> tuple[Array, Array]:
        weights = weights or ((),) * len(self.kinds)
        # In a loop the exponential of a cheap inverse takes ten times as long if it is fused with its inputs. Splines begin
        # with reductions, into which nothing is fused, and take less if x is a separate array.
        cheap, inverse = self.num_params <= CHEAP, direction == "inverse"
        theta, x = unfused(theta) if cheap and inverse else theta, unfused(x) if inverse or not cheap else x
        if len(self.kinds) == 1:
            return self.kinds[0].apply(direction, theta, x, weights[0])
        thetas = cut(reorder(jnp.swapaxes(theta, 0, 1), self.order), *self.counts)
        results = [
            kind.apply(direction, jnp.swapaxes(theta[:, : kind.num_params], 0, 1), rows, w)
            for kind, theta, rows, w in zip(self.kinds, thetas, cut(reorder(x, self.order), *self.counts), weights, strict=True)
        ]
        back = np.argsort(self.order)
        y, log_det = (reorder(jnp.concatenate(pieces), back) for pieces in zip(*results, strict=True))
        return y, log_det


class NetworkInputs:
    """Inputs of a network, from columns that transformers map: angles as cos and sin, without a seam, codes one-hot, and
    numbers over the units of their transformers.

    Numbers alone stay in their order; otherwise they come first, then all cosines, all sines, and all codes.
    """

    def __init__(self, transformers: Sequence[Transformer]):
        regions = [one.region for one in transformers]
        kinds = np.array([2 if region.classes else 1 if region.period else 0 for region in regions], int)
        self.order, self.counts = np.argsort(kinds, kind="stable"), np.bincount(kinds, minlength=3).tolist()
        self.angles, self.classes = kinds == 1, [region.classes for region in regions if region.classes]
        self.turns = np.array([2 * np.pi / region.period for region in regions if region.period])
        self.units = np.array([one.unit for one, kind in zip(transformers, kinds, strict=True) if kind == 0], float)
        self.plain = not kinds.any() and (self.units == 1).all()
        self.size = len(kinds) + len(self.turns) + sum(self.classes) - len(self.classes)

    def __call__(self, x: Array) -> Array:
        """The inputs from x (features, ...)."""
        if self.plain:
            return x
        shape = (-1, *(1,) * (x.ndim - 1))
        numbers, angles, codes = cut(reorder(x, self.order), *self.counts)
        numbers = numbers if (self.units == 1).all() else numbers / jnp.asarray(self.units, x.dtype).reshape(shape)
        turned = angles * jnp.asarray(self.turns, x.dtype).reshape(shape)
        hot = [one_hot_codes(codes, self.classes)] if self.classes else []
        return jnp.concatenate([numbers, jnp.cos(turned), jnp.sin(turned), *hot])

    def in_pairs(self, x: Array) -> Array:
        """Return x with two entries for each column, one after the other: cos and sin, or the number and 0."""
        turns = np.ones(len(self.angles))
        turns[self.angles], turns[~self.angles] = self.turns, 1 / self.units
        shape = (-1, *(1,) * (x.ndim - 1))
        turned, angles = x * jnp.asarray(turns, x.dtype).reshape(shape), self.angles.reshape(shape)
        pairs = jnp.where(angles, jnp.cos(turned), turned), jnp.where(angles, jnp.sin(turned), 0.0)
        return jnp.stack(pairs, axis=1).reshape(2 * len(self.angles), *x.shape[1:])


def places_by(transformer: Any, other: Any = None, name: str = "") -> Support:
    """Return the support of an engine: where its transformers live, as the `other` ones then have to."""
    if transformer is None:
        return Support()
    regions = [one.region for one in as_transformers(transformer, name)]
    if other is not None:
        others = [one.region for one in as_transformers(other, name)]
        most = max(len(regions), len(others))
        if {len(regions), len(others)} - {1, most} or most // len(regions) * regions != most // len(others) * others:
            raise FlowsError(
                f"{name}: transformers live in {tuple(regions)}, and the unconditional ones in {tuple(others)}; expected the "
                "same regions"
            )
    if all(region.flat for region in regions):
        return Support()

    def region(event: tuple[int, ...]) -> Region:
        fields = [np.array(field) for field in zip(*(region.values() for region in regions), strict=True)]
        for_entries = len(regions) == np.prod(event)  # one for each entry, and not for each feature
        return Region(*(np.reshape(field, event) if for_entries else field for field in fields))

    return Support(region, region)


class Trained:
    """Columns whose theta is a trained param: `{"theta": (num_params, features)}`, and "weights" where there are some."""

    def __init__(self, columns: Columns):
        self.columns = columns

    def init(self, key: Array) -> dict[str, Any]:
        theta = jnp.zeros((self.columns.num_params, len(self.columns.kind_of)))
        return {"theta": theta} | ({"weights": self.columns.init(key)} if self.columns.has_weights else {})

    def direct(self, params: dict[str, Any], x: Array) -> tuple[Array, Array]:
        return self.columns.direct(self._theta(params, x), x, params.get("weights"))

    def inverse(self, params: dict[str, Any], y: Array) -> tuple[Array, Array]:
        return self.columns.inverse(self._theta(params, y), y, params.get("weights"))

    def _theta(self, params: dict[str, Any], x: Array) -> Array:
        return params["theta"].reshape(*params["theta"].shape, *(1,) * (x.ndim - 1))


def as_transformers(transformer: Any, name: str) -> tuple[Transformer, ...]:
    """One transformer, or a sequence of them."""
    several = transformer if isinstance(transformer, Sequence) and not isinstance(transformer, str) else (transformer,)
    if not several:
        raise FlowsError(f"{name}: no transformer was given; expected one, or one for each feature")
    return tuple(check_transformer(one, name) for one in several)


def for_each(transformers: tuple[Transformer, ...], features: int, name: str) -> tuple[Transformer, ...]:
    """A transformer for each feature."""
    spend(size=40 * features)  # of tuples and arrays with an entry for each feature
    if len(transformers) not in (1, features):
        raise FlowsError(f"{name}: {len(transformers)} transformers for {features} features; expected one, or one for each")
    return transformers if len(transformers) == features else transformers * features
