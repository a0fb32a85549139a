"""Some sixty public calls of flows, on small data and small models, each with what it gives: see digests.py."""

import inspect
import re
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

# Of keywords, the old name and the new: the calls below use the old one where a checkout knows it.
RENAMES = {"products": "matmul_dtype"}
CALLS: dict[str, Callable[[], Any]] = {}


def call(function: Callable, *arguments: Any, **keywords: Any) -> Any:
    """The function's value, its keywords named as this checkout names them."""
    known = inspect.signature(function).parameters
    return function(*arguments, **{key if key in known else RENAMES.get(key, key): value for key, value in keywords.items()})


def a_call(function: Callable[[], Any]) -> Callable[[], Any]:
    CALLS[function.__name__.replace("_", " ")] = function
    return function


def models() -> dict[str, tuple[Any, Any]]:
    """Distributions with the events that they are drawn and scored on, small enough to compile in seconds."""
    import flows

    small = flows.MLP(8)
    shapes = {
        "NICE": (flows.NICE(2), 4),
        "RealNVP": (flows.RealNVP(2), 4),
        "Glow": (flows.Glow(2), 4),
        "MAF": (flows.MAF(2), 4),
        "IAF": (flows.IAF(2), 4),
        "NSF": (flows.NSF(2), 4),
        "BNAF": (flows.BNAF(), 3),
        "NAF": (flows.NAF(1), 3),
        "SOS": (flows.SOS(1), 3),
        "UMNN": (flows.UMNN(1), 2),
        "GaussianizationFlow": (flows.GaussianizationFlow(2), 3),
        "IResNet": (flows.IResNet(2), 3),
        "ResidualFlow": (flows.ResidualFlow(2), 3),
        "RNODE": (flows.RNODE(), 2),
        "original": (
            flows.Serial(
                flows.MADE(flows.conditioners.MaskedMLP(8)), flows.Reverse(), flows.AffineCoupling(small), flows.BatchNorm()
            ),
            4,
        ),
        "one of each": (
            flows.Serial(
                flows.Reversible(flows.Coupling(small), flows.Shuffle()),
                flows.Repeat(flows.Serial(flows.Whiten(), flows.Planar()), 2),
                flows.Invert(flows.InvertibleLinear()),
                flows.NormalScores(8),
            ),
            4,
        ),
    }
    found: dict[str, tuple[Any, Any]] = {name: (flows.Flow(value), event) for name, (value, event) in shapes.items()}
    found["SphereFlow"] = flows.Flow(flows.SphereFlow(2), flows.SphereUniform()), 3
    found["GlowImage"] = flows.Flow(flows.GlowImage(2, 4)), (8, 8, 1)
    found["NSFImage"] = flows.Flow(flows.NSFImage()), (8, 8, 1)
    found["MixtureMADE"] = flows.MixtureMADE(), 3
    found["GMM"] = flows.GMM(num_components=3), 2
    found["Joint"] = flows.Joint(flows.VonMises(), flows.Normal()), 2
    found["mixture of flows"] = flows.Mixture(flows.Flow(flows.RealNVP(2)), flows.StudentT(5.0)), 3
    return found


def of_model(name: str) -> Callable[[], Any]:
    """Params by data, log-densities, draws and a gradient."""

    def run() -> Any:
        import jax

        init_fun, event = models()[name]
        shape = event if isinstance(event, tuple) else (event,)
        rows = np.random.default_rng(1).normal(size=(32, *shape)).astype(np.float32)
        if "Image" in name:
            rows = np.random.default_rng(1).integers(0, 255, (32, *shape)).astype(np.float32)
        if name == "SphereFlow":
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        params, log_pdf, sample = init_fun(0, event, init_inputs=rows)
        again = init_fun(1, event).params
        loss, slope = jax.value_and_grad(lambda params: -log_pdf(params, rows, **noise(log_pdf)).mean())(params)
        return params, again, log_pdf(params, rows[:7], **noise(log_pdf)), sample(2, params, 5), loss, slope

    return run


def noise(log_pdf: Callable) -> dict[str, int]:
    return {"rng": 3} if "rng" in inspect.signature(log_pdf).parameters else {}


def rows_of(columns: int = 4, rows: int = 2_400) -> np.ndarray:
    """Correlated columns, one with heavy tails and one that others all but tell."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns)) + 10.0
    x[:, 0] = rng.standard_t(2, rows)
    x[:, -1] = x[:, :-1].sum(1) + 0.01 * x[:, -1]
    return x


def fitted(*, rows: Any = None, model: Any = None, **settings: Any) -> Any:
    """A fit of two epochs."""
    import flows

    rows = rows_of() if rows is None else rows
    settings = {"max_epochs": 2, "verbose": 0, **settings}
    return call(flows.fit, 0, flows.Flow(flows.RealNVP(2)) if model is None else model, rows, **settings)


def told(result: Any, rows: Any = None, **context: Any) -> Any:
    """What a result holds and says of a few rows."""
    rows = rows_of() if rows is None else rows
    text = re.sub(r"[\d.]+ (s|min)\b", "", repr(result))  # the time it took
    return result.params, result.history, result.log_prob(rows[:7], **context), result.draw(1, 5, **context), text


def by_minute(x: np.ndarray) -> np.ndarray:
    return np.column_stack([np.sin(x[:, 0]), x[:, 1]])


def register() -> dict[str, Callable[[], Any]]:
    """All calls by name; of fits, each by what it has that others have not."""
    import flows

    settings: dict[str, dict[str, Any]] = {
        "fit": {},
        "fit, whitened": {"standardize": "whiten"},
        "fit, by columns": {"standardize": "columns"},
        "fit as the data are": {"standardize": False},
        "fit, weights": {"weights": np.linspace(0, 1, 2_400)},
        "fit, box": {"rows": 1 / (1 + np.exp(-rows_of()[:, :3] / 20)), "support": (0.0, 1.0)},
        "fit, counts": {"rows": np.round(rows_of() * 2), "dequantize": 1.0},
        "fit, as is": {"as_is": (1,)},
        "fit, few rows": {"rows": rows_of()[:300]},
        "fit, folds": {"folds": 2},
        "fit, an optimizer": {"optimizer": __import__("optax").sgd(1e-3)},
        "fit, accumulated": {"accumulate": 2, "remat": True},
        "fit, bfloat16": {"products": "bfloat16"},
        "fit, no average": {"ema": None, "weight_decay": 1e-3, "batch_size": 100, "steps_per_epoch": 7},
        "fit, rows to validate on": {"validation": rows_of(rows=2_700)[2_400:] + 0.1},
        "fit, batch norm": {"model": flows.Flow(flows.Serial(flows.BatchNorm(), flows.MAF(1)))},
        "fit, mixture": {"model": flows.GMM(num_components=3)},
        "fit, matching": {"model": flows.Flow(flows.RNODE()), "objective": flows.objectives.flow_matching},
        "fit, Student base": {"model": flows.Flow(flows.RealNVP(2), flows.StudentT(5.0))},
        "fit, named": {"rows": named_columns()},
    }
    for name, given in settings.items():
        CALLS[name] = lambda given=given: told(fitted(**given), given.get("rows"))
    return CALLS | {f"model {name}": of_model(name) for name in models()}


def named_columns() -> Any:
    import pandas

    return pandas.DataFrame(rows_of(), columns=["price", "area", "rooms", "sum"])


@a_call
def fit_given_a_context() -> Any:
    rows = rows_of()
    return told(fitted(rows=rows[:, 2:], context=by_minute(rows)), rows[:, 2:], context=by_minute(rows)[:7][0])


@a_call
def fit_on_angles() -> Any:
    import flows

    rows = np.column_stack([np.random.default_rng(0).vonmises(2.0, 3.0, 2_400) % (2 * np.pi), rows_of()[:, 1]])
    parts = (flows.transformers.Moebius(2), flows.transformers.RationalQuadratic(4))
    layers = [flows.Coupling(flows.MLP(8), parts, flip=flip) for flip in (False, True)]
    base = flows.Joint(flows.CircularUniform(), flows.Normal())
    return told(fitted(rows=rows, model=flows.Flow(flows.Serial(*layers), base)), rows)


@a_call
def fit_on_the_sphere() -> Any:
    import flows

    rows = np.random.default_rng(0).normal(0, 1, (2_400, 3)) + np.array([0, 0, 2.0])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return told(fitted(rows=rows, model=flows.Flow(flows.SphereFlow(2), flows.SphereUniform())), rows)


@a_call
def fit_on_images() -> Any:
    import flows

    rows = np.random.default_rng(0).integers(0, 255, (300, 8, 8, 1)).astype(np.uint8)
    return told(fitted(rows=rows, model=flows.Flow(flows.GlowImage(1, 4)), max_epochs=1, folds=1), rows)


@a_call
def fit_on_a_stream() -> Any:
    rows = rows_of()
    pieces = lambda: (rows[at : at + 300] for at in range(0, 1_800, 300))  # noqa: E731
    stream = type("Pieces", (), {"__iter__": lambda self: pieces()})()
    return told(fitted(rows=stream, steps_per_epoch=10, validation=rows[1_800:]))


@a_call
def fit_on_a_memory_map() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/rows.npy", rows_of().astype(np.float32))
        return told(fitted(rows=np.load(f"{folder}/rows.npy", mmap_mode="r")))


@a_call
def fit_that_goes_on() -> Any:
    with tempfile.TemporaryDirectory() as folder:

        def stop(epoch: Any) -> bool:
            return epoch.number == 1

        fitted(checkpoint=folder, callbacks=[stop], max_epochs=3)
        return told(fitted(checkpoint=folder, max_epochs=3))


@a_call
def ensemble() -> Any:
    import flows

    result = flows.fit_ensemble(0, flows.Flow(flows.RealNVP(2)), rows_of(), members=2, max_epochs=2, verbose=0)
    return told(result), result.log_pdfs(result.params, rows_of()[:7]), result.p_value(rows_of()[:50])


@a_call
def select() -> Any:
    import flows

    few = {"Gaussian": flows.Normal(trainable=True, covariance="full"), "RealNVP": flows.Flow(flows.RealNVP(2))}
    found = flows.select(0, few, rows_of()[:400], max_epochs=2, verbose=0)
    return told(found.best), found.weights, told(found.single)


@a_call
def density_of_one_mode() -> Any:
    import flows

    found = flows.fit_to_density(0, flows.Flow(flows.RealNVP(2)), banana, 2, max_epochs=4, verbose=0)
    return told(found, np.zeros((7, 2), np.float32)), tuple(found.diagnostics)


@a_call
def density_of_two_modes() -> Any:
    import flows

    found = flows.fit_to_density(0, flows.Flow(flows.RealNVP(2)), wells, {"mu": (), "x": (1,)}, max_epochs=4, verbose=0)
    return found.params, found.history, found.draw(1, 5), tuple(found.diagnostics)


def banana(x: Any) -> Any:
    return -0.5 * (x[:, 0] ** 2 + 4.0 * (x[:, 1] - 0.5 * x[:, 0] ** 2) ** 2)


def wells(x: dict[str, Any]) -> Any:
    import jax.numpy as jnp

    mu, z = x["mu"], x["x"][:, 0]
    return jnp.logaddexp(-0.5 * ((mu - 4) ** 2 + z**2), 1.0 - 0.5 * ((mu + 4) ** 2 + z**2))


@a_call
def figures_of_a_result() -> Any:
    result = fitted()
    rows = rows_of()
    return result.p_value(rows[:50]), repr(result.verify(rows[:50])), result.scores


@a_call
def quantiles() -> Any:
    result = fitted(rows=rows_of()[:, :1])
    return result.cdf(np.linspace(-3, 3, 7)[:, None]), result.quantile([0.1, 0.5, 0.9]), result.interval(0.8)


@a_call
def file() -> Any:
    import flows

    with tempfile.TemporaryDirectory() as folder:
        fitted().save(f"{folder}/model.flows")
        return told(flows.load(f"{folder}/model.flows"))


@a_call
def verified_layer() -> Any:
    import flows

    return repr(flows.verify(flows.Coupling(flows.MLP(8)), 4))


@a_call
def supports() -> Any:
    import flows

    values = flows.Serial(flows.Unconstrain(low=0.0), flows.RealNVP(2)), flows.Uniform(), flows.VonMises(), flows.Cylinder()
    regions = [region for value in values for region in (flows.support(value, 3).inputs, flows.support(value, 3).outputs)]
    return [(*region, region.period, region.sphere) for region in regions]
