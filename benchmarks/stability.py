"""Where models can be trusted: round trips and log-dets, of deep trained models far from their data and of every transformer.

    python benchmarks/stability.py                              # all of it, about an hour on one core
    python benchmarks/stability.py --parts certified            # a minute
    python benchmarks/stability.py --parts deep --data moons --models "NSF(20)" --seeds 1
    python benchmarks/stability.py --table                      # what was measured

deep        models of 20 layers, as `flows.fit` trains them by default, with networks that see all of their inputs ("unsafe":
            squash=None and splines with floors of 1e-3) and as they are by default ("default"): the share of test rows whose
            round trip or log-det is off by more than 1e-3 standard deviations or nats, as they are and ten times farther out
            (`result.verify`), and what the default costs, in nats a dimension
certified   every transformer at parameters drawn from a standard normal, and every model of 4 columns with noise on its params
            that moves what its layers return by about 0.1, in float32 and float64: the largest errors of round trips,
            |f^-1(f(x)) - x| / (1 + |x|), and of log-dets, at x and at the point that comes back; of transformers at 10,000
            points inside, at both edges and just beside them, and a million away

Written to benchmarks/results/stability.json; what is there already is not measured again.
"""

import argparse
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import records
from sklearn.datasets import make_moons

import flows
from flows import transformers as t
from flows.diagnostics import enable_x64

ROOT = Path(__file__).resolve().parent.parent
DATA, RESULTS = ROOT / "examples" / "data", ROOT / "benchmarks" / "results"
LAYERS, FAR, TESTED = 20, 10.0, 2_000
UNSAFE = {"squash": None}
FLOORS = {"min_bin": 1e-3, "min_slope": 1e-3}
MODELS = {
    "NSF(20)": partial(flows.NSF, LAYERS),
    "NSF(20, plain=True)": partial(flows.NSF, LAYERS, plain=True),
    "NSF(20, autoregressive=False)": partial(flows.NSF, LAYERS, autoregressive=False),
    "RealNVP(20)": partial(flows.RealNVP, LAYERS),
    "MAF(20)": partial(flows.MAF, LAYERS),
}


def power():
    """Minutes of a household's electricity use, prepared as the POWER set of MAF (arXiv:1705.07057) is: without reactive power,
    with uniform noise on the others but time; narrow peaks where a sub-meter stands still."""
    minute, active, _, voltage, *meters = np.loadtxt(DATA / "household_power.csv", delimiter=",", skiprows=1).T
    values = np.stack([active, voltage, *meters, minute], axis=1)
    return values + np.array([0.001, 0.01, 1, 1, 1, 0]) * np.random.default_rng(42).uniform(size=values.shape)


def galaxies():
    """Redshifts and magnitudes of simulated galaxies: narrow ridges."""
    return np.loadtxt(DATA / "galaxies.csv", delimiter=",", skiprows=1)


def moons():
    """Two moons, noise 0.05: thin, with a gap in between."""
    return make_moons(20_000, noise=0.05, random_state=0)[0]


DATASETS = {"galaxies": galaxies, "moons": moons, "power": power}


def deep(data: str, name: str, variant: str, seed: int) -> dict:
    """One model, trained by default and looked at on rows that it has not seen."""
    rows = np.random.default_rng(seed).permutation(DATASETS[data]())
    test, train = rows[: len(rows) // 10], rows[len(rows) // 10 :]
    settings = {} if variant == "default" else UNSAFE | (FLOORS if name.startswith("NSF") else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = flows.fit(seed, flows.Flow(MODELS[name](**settings)), train, folds=1, verbose=0)
    scores, center = np.asarray(result.log_prob(test), float), train.mean(0)
    d, test = train.shape[1], test[:TESTED]
    near, far = (result.verify(x) for x in (test, center + FAR * (test - center)))
    return {
        "round trip": near.round_trip,
        "log-det": near.log_det,
        "near": off(near),
        "far": off(far),
        "nats a dim": float(scores.mean()) / d,
        "error": float(scores.std() / len(scores) ** 0.5) / d,
        "seconds": result.seconds,
    }


def off(report) -> float:
    """The share of rows whose round trip or log-det is off; to lie outside the splines' range is no error."""
    return sum(not each.reason.startswith("it lies") for each in report.rows) / report.looked_at


BOUND = 3.0
TRANSFORMERS = {
    "Additive": t.Additive(),
    "Affine": t.Affine(2.0),
    "Gated": t.Gated(),
    "RationalQuadratic": t.RationalQuadratic(8, BOUND),
    "QuadraticSpline": t.QuadraticSpline(8, BOUND),
    "CubicSpline": t.CubicSpline(8, BOUND),
    "LinearSpline": t.LinearSpline(8, BOUND),
    "LinearRational": t.LinearRational(8, BOUND),
    "CircularRationalQuadratic": t.CircularRationalQuadratic(8, np.pi),
    "Bernstein": t.Bernstein(8, BOUND),
    "MixtureCDF": t.MixtureCDF(8),
    "Gaussianization": t.Gaussianization(8),
    "DeepSigmoidal": t.DeepSigmoidal(8),
    "SumOfSquares": t.SumOfSquares(3),
    "MonotonicNetwork": t.MonotonicNetwork((8,), embedding=2),
}


def places(name: str, dtype) -> dict:
    """Points inside, at the edges and a rounding beside them, and far out."""
    bound = np.pi if name == "CircularRationalQuadratic" else BOUND
    ends = np.array([-bound, bound], dtype)
    edges = np.concatenate([ends, np.nextafter(ends, dtype(0)), np.nextafter(ends, dtype(2) * ends)])
    inside = np.linspace(-0.999 * bound, 0.999 * bound, 10_000).astype(dtype)
    return {"inside": inside, "edges": np.repeat(edges, 1000)} | (
        {} if name.startswith("Circular") else {"far": ends * dtype(1e6)}
    )


def certified_transformer(name: str, dtype) -> dict:
    case, found = TRANSFORMERS[name], {}
    for where, x in places(name, dtype).items():
        rng = np.random.default_rng(0)
        theta = jnp.asarray(rng.normal(size=(case.num_params, len(x))).astype(dtype))
        weights = case.init(jax.random.key(0)) if case.has_weights else None
        own = () if weights is None else (jax.tree.map(lambda leaf: leaf.astype(dtype), weights),)
        y, log_det = jax.jit(case.direct)(theta, jnp.asarray(x), *own)
        back, _ = jax.jit(case.inverse)(theta, y, *own)
        again = jax.jit(case.direct)(theta, back, *own)[1]  # by the fourth rule the log-det of the inverse is minus this
        found[where] = errors(back, x, log_det, again)
    return found


def certified_model(name: str, dtype) -> dict:
    bijection = getattr(flows, name)()
    params, direct_fun, inverse_fun = bijection(0, 4)
    rng = np.random.default_rng(0)

    def moved(leaf, trains):
        fan_in = leaf.shape[-2] if leaf.ndim > 1 else 1
        return jnp.asarray(leaf + 0.1 * rng.normal(size=leaf.shape) * trains / fan_in**0.5, dtype)

    params = jax.tree.map(moved, params, flows.trainable(params))
    found, x = {}, rng.normal(size=(TESTED, 4)).astype(dtype)
    for where, points in {"inside": x, "far": FAR * x}.items():
        y, log_det = direct_fun(params, points)
        back, back_log_det = inverse_fun(params, y)
        found[where] = errors(back, points, log_det, -back_log_det)
    return found


def errors(back, x, log_det, again) -> list[float]:
    back, x, log_det, again = (np.asarray(each, np.float64) for each in (back, x, log_det, again))
    return [float((np.abs(back - x) / (1 + np.abs(x))).max()), float(np.abs(log_det - again).max())]


PRESETS = ("NICE", "RealNVP", "Glow", "MAF", "IAF", "NSF", "SOS", "NAF", "BNAF", "GaussianizationFlow")


def certified(options, found: dict, save) -> None:
    for kind, names, measure in (("transformers", TRANSFORMERS, certified_transformer), ("models", PRESETS, certified_model)):
        for name in names:
            for dtype in (np.float32, np.float64):
                own = found.setdefault(kind, {}).setdefault(name, {})
                if dtype.__name__ not in own:
                    with enable_x64() if dtype is np.float64 else jax.numpy_dtype_promotion("standard"):
                        own[dtype.__name__] = measure(name, dtype)
                    print(name, dtype.__name__, own[dtype.__name__], flush=True)
                    save()


def of_deep(options, found: dict, save) -> None:
    for seed in map(str, range(options.seeds)):
        for data in options.data:
            for name in options.models:
                for variant in ("default", "unsafe"):
                    own = found.setdefault("deep", {}).setdefault(f"{name}, {data}", {}).setdefault(variant, {})
                    if seed not in own:
                        own[seed] = deep(data, name, variant, int(seed))
                        print(f"{name}, {data}, seed {seed}, {variant}: {own[seed]}", flush=True)
                        save()
                        jax.clear_caches()
                        flows.clear_caches()


def tables(found: dict) -> str:
    lines = [
        "| 20 layers | seeds | off at 10 x, unsafe | off at 10 x, default | off on test rows | worst round trip, log-det | "
        "cost, nats a dim |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, own in found.get("deep", {}).items():
        both = [(own["unsafe"][seed], own["default"][seed]) for seed in own["default"] if seed in own.get("unsafe", {})]
        if not both:
            continue
        cost = np.array([unsafe["nats a dim"] - safe["nats a dim"] for unsafe, safe in both])
        spread = np.hypot(*[np.mean([each[i]["error"] for each in both]) for i in (0, 1)]) / len(both) ** 0.5
        far, safe_far, near = (np.mean([each[i][what] for each in both]) for i, what in ((0, "far"), (1, "far"), (1, "near")))
        worst = [max(each[1][what] for each in both) for what in ("round trip", "log-det")]
        lines.append(
            f"| {name} | {len(both)} | {far:.1%} | {safe_far:.1%} | {near:.2%} | {worst[0]:.0e}, {worst[1]:.0e} | "
            f"{cost.mean():+.4f} +- {spread:.4f} |"
        )
    for kind, where in (("transformers", ("inside", "edges", "far")), ("models", ("inside", "far"))):
        lines += ["", f"| {kind[:-1]} | " + " | ".join(f"{d}, {w}" for d in ("float32", "float64") for w in where) + " |"]
        lines.append("|" + "---|" * (1 + 2 * len(where)))
        for name, own in found.get(kind, {}).items():
            cells = [own[d].get(w) for d in ("float32", "float64") for w in where if d in own]
            lines.append(
                f"| {name} | " + " | ".join("" if each is None else "{:.0e}, {:.0e}".format(*each) for each in cells) + " |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=("deep", "certified"), default=("certified", "deep"))
    parser.add_argument("--data", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "stability.json")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    found = records.read(options.out)

    def save() -> None:
        records.write(options.out, found)

    if not options.table:
        for part in options.parts:
            {"certified": certified, "deep": of_deep}[part](options, found, save)
    print(tables(found))


if __name__ == "__main__":
    main()
