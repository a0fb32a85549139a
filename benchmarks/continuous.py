"""Continuous flows beside discrete ones, and beside zuko's: what they cost, and what they are worth after equal times.

    python benchmarks/continuous.py                     # all of it, 25 minutes of one core
    python benchmarks/continuous.py --part time --repeats 9
    python benchmarks/continuous.py --part shapes --minutes 0.3
    python benchmarks/continuous.py --part power --minutes 10
    python benchmarks/continuous.py --table             # what was measured

time     the same network with the same weights here and in zuko, trained by flow matching on two moons (d = 2) or on three
         pairs of them that were rotated (d = 6), "dopri5" at tolerance 1e-5 in both: 10,000 densities with the exact trace,
         8,192 samples, a step by likelihood of 128 rows, a step of flow matching of 512; ours and theirs in turns. zuko's
         steps are the same for a whole batch, and its trace may be off by a hundred times the tolerance; ours are of each
         row. So both are also compared with a solution in float64. Beside them equal steps, and the default spline flow.
shapes   nats behind the truth on the six of flows.datasets after as much training
power    nats on the POWER set, in the same way

Time is that of the CPU, on one core. A fit trains for as many epochs as fit into --minutes, after a short one that compiles;
all else is as `flows.fit` has it. Written to benchmarks/results/continuous.json after each figure; what is there already is
not measured again.
"""

import argparse
import os
import platform
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import records

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--part", nargs="+", default=["time", "shapes", "power"], choices=["time", "shapes", "power"])
parser.add_argument("--core", type=int, default=0)
parser.add_argument("--repeats", type=int, default=5)
parser.add_argument("--minutes", type=float, help="of training for each fit; by default 0.3 on shapes, 10 on POWER")
parser.add_argument("--models", nargs="+", help="those of shapes and power, by default all")
parser.add_argument("--data", type=Path, default=Path("out"), help="the folder of power_data.py")
parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "continuous.json")
parser.add_argument("--table", action="store_true")
options = parser.parse_args()
os.sched_setaffinity(0, {options.core})  # before jax starts its threads
for name in [each for each in os.environ if each == "XLA_FLAGS" or each.startswith("JAX_")]:
    del os.environ[name]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from processes import Peer  # noqa: E402

import flows  # noqa: E402
from flows.diagnostics import enable_x64  # noqa: E402
from flows.objectives import flow_matching  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE, FREQS, HIDDEN = 1e-5, 3, (64, 64, 64)
ROWS, SAMPLES, FEW, MORE, CHECKED = 10_000, 8_192, 128, 512, 1_000
ACTIVATIONS = {"elu": "ELU", "tanh": "Tanh"}  # zuko's default, and a smooth one
CASES = [(2, "elu"), (2, "tanh"), (6, "elu")]
LEAST = 0.1  # seconds, of one measurement
SHAPES = ("TwoMoons", "EightGaussians", "Checkerboard", "Rings", "Spirals", "Pinwheel")
TEST = 10_000
NETWORK = "Continuous, flow matching"
# The constructor, that of the model by which its params are scored too, and what is minimised.
MODELS = {
    NETWORK: (flows.Continuous(), None, flow_matching),
    "FFJORD": (flows.FFJORD(), flows.FFJORD(steps=None, solver="tsit5", tolerance=TOLERANCE), None),
    "RNODE": (flows.RNODE(), flows.RNODE(steps=None, solver="tsit5", tolerance=TOLERANCE), None),
    "NSF": (flows.NSF(), None, None),
    "RealNVP": (flows.RealNVP(), None, None),
}
OF_POWER = ("NSF", NETWORK, "FFJORD")


# Beside zuko


@flows.conditioner
def FreeForm(activation):
    """zuko's network, of cosines and sines of the time and of x, whose way is from data at 0 to noise at 1."""
    freqs = np.pi * np.arange(1, FREQS + 1)

    def net(rng, input_dim, output_dim):
        params, run = flows.MLP(*HIDDEN, activation=activation)(rng, 2 * FREQS + input_dim - 1, output_dim)

        def apply_fun(params, inputs):
            x, phase = inputs[:, :-1], jnp.asarray(freqs[None], inputs.dtype) * (1 - inputs[:, -1:])
            return -run(params, jnp.concatenate([jnp.cos(phase), jnp.sin(phase), x], 1))

        return params, apply_fun

    return net


def continuous(activation, **given):
    return flows.Flow(flows.Continuous(FreeForm(activation), **given))


def moons(d: int, n: int, seed: int) -> np.ndarray:
    """Pairs of columns, standardised and rotated."""
    params, _, sample = flows.datasets.TwoMoons()(0, 2)
    x = np.concatenate([np.asarray(sample(100 * seed + i, params, n)) for i in range(d // 2)], 1)
    x = (x - [0.5, 0.25] * (d // 2)) / ([0.87, 0.5] * (d // 2))
    turn = np.eye(2) if d == 2 else np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    return (x @ turn).astype(np.float32)


def stepped(params, loss):
    """A step of Adam; every call starts from the same params."""
    optimizer = optax.adam(1e-3)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, x, key):
        value, grads = jax.value_and_grad(loss)(params, x, key)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return lambda x, key: step(params, state, x, key)


def ours(activation: str, params, given: dict) -> dict:
    """What is measured here, by what zuko calls it and how it is done: functions of a key."""
    d = given["rows"].shape[1]
    adaptive = continuous(activation, solver="dopri5", tolerance=TOLERANCE)(0, d)
    few, many = (continuous(activation, solver=name, steps=steps)(0, d) for name, steps in (("rk4", 8), ("dopri5", 30)))
    spline = flows.Flow(flows.NSF())(0, d)

    def density(distribution, params):
        run = jax.jit(distribution.log_pdf)
        return lambda key: run(params, given["rows"])

    def draws(distribution, params):
        run = jax.jit(lambda params, key: distribution.sample(key, params, SAMPLES))
        return lambda key: run(params, key)

    def by_likelihood(distribution):
        step = stepped(params, lambda params, x, key: -distribution.log_pdf(params, x).mean())
        return lambda key: step(given["few"], key)

    matched = stepped(params, lambda params, x, key: flow_matching(params, adaptive, x, rng=key))
    return {
        "densities": {
            "": density(adaptive, params), "30 steps": density(many, params), "NSF": density(spline, spline.params)
        },
        "samples": {"": draws(adaptive, params), "30 steps": draws(many, params), "NSF": draws(spline, spline.params)},
        "likelihood": {"": by_likelihood(adaptive), "8 steps": by_likelihood(few)},
        "matching": {"": lambda key: matched(given["more"], key)},
    }  # fmt: skip


def timed(run, times: int) -> dict:
    clock, cpu = time.perf_counter(), time.process_time()
    for i in range(times):
        jax.block_until_ready(run(jax.random.key(i)))
    return {"clock": (time.perf_counter() - clock) / times, "cpu": (time.process_time() - cpu) / times}


def beside(d: int, activation: str) -> dict:
    """Both in turns, after one call of each."""
    np.ones(31 * 2**20, np.uint8).sum()  # peers/worker.py says why
    model = continuous(activation, solver="dopri5", tolerance=TOLERANCE)
    trained = flows.fit(
        0, model, moons(d, 20_000, 1), objective=flow_matching, standardize=False, max_epochs=30, folds=1, verbose=0
    )
    rows = moons(d, ROWS, 2)
    layers = {f"{key}{i}": np.asarray(layer[key]) for i, layer in enumerate(trained.params["bijection"]) for key in "wb"}
    given = {"rows": rows, "few": rows[:FEW], "more": rows[:MORE]}
    runs = ours(activation, trained.params, given)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "given.npz"
        np.savez(file, activation=ACTIVATIONS[activation], tolerance=TOLERANCE, samples=SAMPLES, **layers, **given)
        python, script = ROOT / ".venv-torch" / "bin" / "python", ROOT / "benchmarks" / "peers" / "continuous_zuko.py"
        with Peer("zuko", [python, script, options.core, file]) as peer:
            peer.ask("values", Path(folder) / "values.npy")
            theirs = np.load(Path(folder) / "values.npy")
            found = {"versions": peer.start, "times": {}}
            for what, ways in runs.items():
                first = {way: timed(run, 1)["cpu"] for way, run in ways.items()} | {"zuko": peer.ask(what)["cpu"]}
                calls = {way: partial(timed, run) for way, run in ways.items()} | {"zuko": partial(peer.ask, what)}
                times = {way: max(1, round(LEAST / call(1)["cpu"])) for way, call in calls.items()}
                turns = [{way: call(times[way]) for way, call in calls.items()} for _ in range(options.repeats)]
                cpu, clock = ({way: [turn[way][kind] for turn in turns] for way in calls} for kind in ("cpu", "clock"))
                found["times"][what] = {"first": first, "cpu": cpu, "clock": clock}
                print("\n".join(lines_of(f"d = {d}, {activation}", what, found["times"][what])), flush=True)
    found["errors"] = errors(d, activation, trained.params, rows, runs, theirs)
    return found


def lines_of(case: str, what: str, found: dict) -> list[str]:
    """Of a table: a row for each way to do it here."""
    lines, theirs = [], np.array(found["cpu"]["zuko"])
    for way, values in found["cpu"].items():
        if way != "zuko":
            ratios = theirs / values
            cells = [
                f"{case}: {what}{', ' * bool(way)}{way}", f"{1e3 * np.median(values):,.3g}", f"{1e3 * np.median(theirs):,.3g}",
                f"{np.median(ratios):.3g} ({ratios.min():.3g} to {ratios.max():.3g})", f"{found['first'][way]:.1f}",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def errors(d: int, activation: str, params, rows, runs: dict, theirs) -> dict:
    """Of log-densities, against a solution in float64: root mean square and largest, in nats."""
    with enable_x64():
        exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        log_pdf = continuous(activation, solver="dopri5", tolerance=1e-9)(0, d).log_pdf
        truth = np.asarray(jax.jit(log_pdf)(exact, rows[:CHECKED].astype(np.float64)))
    found = {}
    by = {"ours": runs["densities"][""](None), "30 steps": runs["densities"]["30 steps"](None), "theirs": theirs}
    for who, values in by.items():
        off = np.asarray(values, float)[:CHECKED] - truth
        found[who] = [float(np.sqrt((off**2).mean())), float(np.abs(off).max())]
        if not found[who][0] < 0.1:
            raise SystemExit(f"d = {d}, {activation}: {who} is off by {found[who][0]:.3g} nats; it is not the same network")
    print(d, activation, "errors", found, flush=True)
    return found


# What they are worth


class Fits:
    """Fits that take as many minutes of the CPU, compiling apart; the first of each model says how long an epoch takes."""

    def __init__(self, minutes: float, **settings):
        self.seconds, self.settings, self.known = 60 * minutes, settings, {}

    def __call__(self, name: str, rows):
        model, _, objective = MODELS[name]
        if name not in self.known:
            start, ends = time.process_time(), []
            self.fit(model, objective, rows, 3, [lambda epoch: ends.append(time.process_time())])
            epoch = (ends[-1] - ends[0]) / (len(ends) - 1)
            self.known[name] = epoch, max(ends[-1] - start - len(ends) * epoch, 0.0)
        epoch, compiling = self.known[name]
        start = time.process_time()
        stop = [lambda epoch: time.process_time() - start > 1.25 * self.seconds]
        result = self.fit(model, objective, rows, max(round(self.seconds / epoch), 1), stop)
        taken = {"epochs": len(result.history["train_loss"]), "seconds": time.process_time() - start, "compiling": compiling}
        return result, taken

    def fit(self, model, objective, rows, epochs, callbacks):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return flows.fit(
                0, flows.Flow(model), rows, objective=objective, max_epochs=epochs, patience=epochs, callbacks=callbacks,
                folds=1 if "validation" not in self.settings else None, verbose=0, **self.settings,
            )  # fmt: skip


def scored(name: str, result, test, truth, standardised: bool) -> dict:
    """Mean log-densities of test rows by the model as it was trained and, where that takes equal steps, by adaptive ones."""
    exact, found = MODELS[name][1], {}
    log_pdfs = {"nats": result.log_pdf}
    if exact is not None:
        flow = flows.Flow(exact)
        log_pdfs["adaptive"] = (flows.Flow(flows.Whiten(), flow) if standardised else flow)(0, test.shape[1]).log_pdf
    for key, log_pdf in log_pdfs.items():
        start = time.process_time()
        values = np.concatenate([np.asarray(log_pdf(result.params, part), float) for part in np.array_split(test, 5)])
        finite = np.isfinite(values)
        off = (values if truth is None else values - truth)[finite]
        found[key] = {
            "mean": float(off.mean()), "error": float(off.std() / len(off) ** 0.5), "lost": int((~finite).sum()),
            "scoring": time.process_time() - start,
        }  # fmt: skip
    return found


def of_time(found: dict, save) -> None:
    for d, activation in CASES:
        if (case := f"d = {d}, {activation}") not in found:
            found[case] = beside(d, activation)
            save()


def of_shapes(found: dict, save) -> None:
    fits = Fits(options.minutes or 0.3)
    for shape in SHAPES:
        params, log_pdf, sample = getattr(flows.datasets, shape)()(0, 2)
        train, test = (np.asarray(sample(seed, params, n)) for seed, n in enumerate((30_000, TEST)))
        truth = np.asarray(log_pdf(params, test), float)
        for name in options.models or MODELS:
            if name not in found.setdefault(shape, {"truth": float(truth.mean())}):
                result, taken = fits(name, train)
                found[shape][name] = taken | scored(name, result, test, truth, True)
                print(shape, name, found[shape][name], flush=True)
                save()


def of_power(found: dict, save) -> None:
    from power_data import load

    split, fits = load(options.data), None
    for name in options.models or OF_POWER:
        if name not in found:
            fits = fits or Fits(
                options.minutes or 10.0,
                validation=split.validation[:5_000],
                batch_size=512,
                steps_per_epoch=100,
                standardize=False,
            )
            result, taken = fits(name, split.train)
            steps = 100 * taken["epochs"]
            found[name] = taken | {"steps": steps} | scored(name, result, split.test[:20_000], None, False)
            print("POWER", name, found[name], flush=True)
            save()


def tables(found: dict) -> str:
    lines = ["| | ours, ms | theirs, ms | theirs / ours | our first call, s |", "|---" * 5 + "|"]
    for case, own in found.get("time", {}).items():
        for what, each in own["times"].items():
            lines += lines_of(case, what, each)
    for case, own in found.get("time", {}).items():
        both = ", ".join(f"{who} {rms:.1g} ({most:.1g})" for who, (rms, most) in own["errors"].items())
        lines.append(f"{case}: errors of log-densities, root mean square (largest): {both}")
    if shapes := found.get("shapes"):
        lines += ["", f"| | truth | {' | '.join(MODELS)} |", "|---" * (len(MODELS) + 2) + "|"]
        for shape, own in shapes.items():
            each = [own[name]["nats"] if name in own else None for name in MODELS]
            cells = [f"{-nats['mean']:.3f} +- {nats['error']:.3f}" if nats else "" for nats in each]
            lines.append(f"| {shape} | {own['truth']:.3f} | {' | '.join(cells)} |")
        for shape, own in shapes.items():
            told = [
                f"{name}: {each['epochs']} epochs, compiling {each['compiling']:.0f} s, scoring {each['nats']['scoring']:.1f} s"
                + (f", by adaptive steps {-each['adaptive']['mean']:.3f}" if "adaptive" in each else "")
                for name, each in own.items()
                if name in MODELS
            ]
            lines.append(f"{shape}: {'; '.join(told)}")
    if power := found.get("power"):
        lines += ["", "| POWER | nats | by adaptive steps | training steps | seconds | scoring, s |", "|---" * 6 + "|"]
        for name, own in power.items():
            nats, exact = own["nats"], own.get("adaptive")
            cells = [
                name, f"{nats['mean']:.3f} +- {nats['error']:.3f}", f"{exact['mean']:.3f}" if exact else "",
                f"{own['steps']:,}", f"{own['seconds']:.0f}", f"{nats['scoring']:.0f}",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    found = records.read(options.out)

    def save():
        found["versions"] = {"jax": jax.__version__, "python": platform.python_version()}
        records.write(options.out, found)

    if not options.table:
        for part in options.part:
            {"time": of_time, "shapes": of_shapes, "power": of_power}[part](found.setdefault(part, {}), save)
    print(tables(found))


if __name__ == "__main__":
    main()
