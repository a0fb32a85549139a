"""Flows of images: what a training step costs beyond its convolutions, memory and compile time by depth, and other libraries.

    python benchmarks/images.py                    # all of it, 20 minutes of one core
    python benchmarks/images.py --part floor peers --repeats 9
    python benchmarks/images.py --table            # what was measured

floor    a training step (the gradient of the mean negative log-density) of `GlowImage`, unrolled, as a loop and reversible,
         over its bare convolutions: those of the same networks, one after the other with a ReLU in between and nothing else,
         forwards and backwards; and over the floor that computes them once more for the gradient
memory   what XLA takes for that gradient beyond params and what is returned, by depth, and how far the reversible gradient is
         from the loop's
depth    the time to trace and to compile that gradient, and to set a model by data, by depth
peers    images a second of a training step with Adam, and the memory of the process, beside the Glow of normflows and nflows;
         where processes keep the memory that they free, as in all other parts, and where they give it back, as glibc does it

Time is that of the CPU, on one core, in turns; ratios are medians over the turns. Written to benchmarks/results/images.json
after each figure.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import records

PARTS = ("floor", "memory", "depth", "peers")
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--part", nargs="+", default=PARTS, choices=PARTS)
parser.add_argument("--core", type=int, default=0)
parser.add_argument("--repeats", type=int, default=7)
parser.add_argument("--torch", type=Path, default=Path(".venv-torch"), help="the environment with normflows and nflows")
parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "images.json")
parser.add_argument("--table", action="store_true")
options = parser.parse_args()
os.sched_setaffinity(0, {options.core})  # before jax starts its threads
for name in [each for each in os.environ if each == "XLA_FLAGS" or each.startswith("JAX_")]:
    del os.environ[name]
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**32)}
if not options.table and os.environ.items() & KEEPING.items() != KEEPING.items():
    os.environ.update(KEEPING)  # for every library: else pages that are new in each step take up to a third of some
    os.execv(sys.executable, [sys.executable, *sys.argv])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from processes import Peer  # noqa: E402

import flows  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
BATCH, MEASURED, LEAST = 32, 256, 0.5  # images of a step, of an init by data; seconds of one measurement
FORMS = {"unrolled": {"scan": False}, "loop": {"scan": True}, "reversible": {"scan": True, "reversible": True}}
# Side of the images, steps a level, width of the networks, levels.
FLOORS = [(16, 4, 64, 2), (16, 8, 64, 2), (32, 8, 128, 3)]
OF_MEMORY, DEPTHS = (8, 32), (8, 48)
OF_PEERS = [(32, 4, 64, 2), (32, 8, 128, 3)]
LIBRARIES = ("normflows", "nflows")


def named(side: int, layers: int, width: int, levels: int) -> str:
    return f"({side}, {side}, 3), {levels} levels of {layers} steps, width {width}"


def images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, side, side, 3)).astype(np.float32)


def gradient_of(side: int, layers: int, width: int, levels: int, form: str):
    """The gradient, and where it is taken: at params that are no longer those of a start, and images."""
    init_fun = flows.Flow(flows.GlowImage(layers, width, levels, squash=None, **FORMS[form]))
    params, log_pdf, _ = init_fun(0, (side, side, 3))
    leaves, tree = jax.tree.flatten(params)
    moved = [moved_leaf(i, leaf) for i, leaf in enumerate(leaves)]
    params = jax.tree.map(
        lambda trained, own, old: own if trained else old, flows.trainable(params), tree.unflatten(moved), params
    )
    return jax.jit(jax.value_and_grad(lambda params, x: -log_pdf(params, x).mean())), params, images(BATCH, side)


def moved_leaf(i: int, leaf):
    """By a little: forms that stack their params and those that do not are at other points, of the same cost."""
    return leaf + 0.02 * np.random.default_rng(i).normal(size=leaf.shape).astype(np.float32)


# Over the bare convolutions


def networks(side: int, layers: int, width: int, levels: int) -> list[tuple[int, list[tuple[int, int, int]], int]]:
    """Of each level: the side of its images, the convolutions (k, inputs, outputs) of its network, and those of its split."""
    found, channels = [], 3
    for i in range(levels):
        side, channels = side // 2, 4 * channels
        kept, moved = channels // 2, channels - channels // 2
        net = [(3, kept, width), (1, width, width), (3, width, 2 * moved)]
        found.append((side, net, 0 if i == levels - 1 else kept))
        channels = kept
    return found


@jax.custom_vjp
def relu(x):
    """Whose gradient is an array of its own: outside of loops XLA fuses it with a transposition that takes half of the step."""
    return jnp.maximum(x, 0.0)


def relu_backwards(y, of_y):
    of_x = jnp.where(y > 0, of_y, 0.0)
    return (jax.lax.cond(y.ravel()[0] >= 0, lambda of_x: of_x, jnp.zeros_like, of_x),)


relu.defvjp(lambda x: (relu(x),) * 2, relu_backwards)


def convolution(w, x):
    layout = ("NHWC", "HWIO", "NHWC")
    if w.shape[:2] == (1, 1):
        return jnp.tensordot(x, w[0, 0], 1, precision="highest")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout, precision="highest")


def network(ws, x):
    return convolution(ws[2], relu(convolution(ws[1], relu(convolution(ws[0], x)))))


@jax.custom_vjp
def network_again(ws, x):
    """The same, whose gradient computes it again."""
    return network(ws, x)


def network_backwards(given, of_y):
    """XLA undoes `jax.checkpoint` outside of loops; so inputs depend on cotangents."""
    ws, x = given
    y, pull = jax.vjp(network, ws, x + 0.0 * of_y.ravel()[0])
    return pull(of_y + 0.0 * y.ravel()[0])


network_again.defvjp(lambda ws, x: (network(ws, x), (ws, x)), network_backwards)


def floor_of(case: tuple[int, int, int, int], again: bool):
    """Bare convolutions, forwards and backwards; `again`: once more."""
    layers, rng, run = case[1], np.random.default_rng(0), network_again if again else network

    def weights(k, a, b):
        return (rng.normal(size=(k, k, a, b)) / (k * k * a) ** 0.5).astype(np.float32)

    params, inputs = [], []
    for side, net, kept in networks(*case):
        split = [weights(3, kept, 2 * kept)] if kept else []
        params.append(([[weights(*each) for each in net] for _ in range(layers)], split))
        inputs.append(rng.normal(size=(BATCH, side, side, net[0][1])).astype(np.float32))

    def loss(params, inputs):
        total = 0.0
        for (nets, split), x in zip(params, inputs, strict=True):
            for ws in nets:
                y = run(ws, x)
                x = y[..., : x.shape[-1]]
            total += jnp.square(y).sum() + sum(convolution(w, x).sum() for w in split)
        return total / BATCH

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))), params, inputs


def seconds(run, times: int) -> float:
    """Of the CPU."""
    start = time.process_time()
    for _ in range(times):
        jax.block_until_ready(run())
    return (time.process_time() - start) / times


def in_turns(runs: dict) -> dict[str, list[float]]:
    """Seconds of each, a list over the turns; what compiles, and one call more, go before."""
    times = {}
    for each, run in runs.items():
        seconds(run, 2)
        times[each] = max(1, round(LEAST / seconds(run, 1)))
    found: dict[str, list[float]] = {each: [] for each in runs}
    for _ in range(options.repeats):
        for each, run in runs.items():
            found[each].append(seconds(run, times[each]))
    return found


def of_floor(found: dict, save) -> None:
    for case in FLOORS:
        made = {form: gradient_of(*case, form) for form in FORMS}
        made |= {"floor": floor_of(case, False), "floor, again": floor_of(case, True)}
        made = {each: (jax.block_until_ready(jax.device_put(given)), run) for each, (run, *given) in made.items()}
        runs = {each: (lambda given=given, run=run: run(*given)) for each, (given, run) in made.items()}
        found[named(*case)] = in_turns(runs)
        save()


# Memory and depth


def of_memory(found: dict, save) -> None:
    case = found.setdefault("32 images of " + named(16, 0, 64, 2).replace(" of 0 steps", ""), {})
    for layers in OF_MEMORY:
        for form in FORMS:
            run, params, x = gradient_of(16, layers, 64, 2, form)
            memory = run.lower(params, x).compile().memory_analysis()
            params_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
            case[f"{form}, {layers}"] = {"temp": memory.temp_size_in_bytes, "params": params_bytes}
            save()
    for layers in OF_MEMORY:
        run, params, x = gradient_of(16, layers, 64, 2, "loop")
        (value, plain), (other, back) = run(params, x), gradient_of(16, layers, 64, 2, "reversible")[0](params, x)
        pairs = list(zip(jax.tree.leaves(plain), jax.tree.leaves(back), strict=True))
        far = [float(jnp.abs(a - b).max() / jnp.maximum(jnp.abs(a).max(), 1e-3)) for a, b in pairs]
        root = [sum(float(jnp.square(each).sum()) for each in leaves) ** 0.5 for leaves in
                ([a - b for a, b in pairs], [a for a, _ in pairs])]  # fmt: skip
        case[f"off, {layers}"] = {
            "value": abs(float(other / value - 1)), "of the gradient": root[0] / root[1], "of the worst array": max(far)
        }  # fmt: skip
        save()


def of_depth(found: dict, save) -> None:
    for form in ("loop", "reversible"):
        for layers in DEPTHS:
            gradient_of(16, 2, 8, 1, form)  # small things compile once
            taken: dict[str, list[float]] = {}
            for _ in range(3):
                flows.clear_caches(), jax.clear_caches()
                for what, each in depth_of(form, layers).items():
                    taken.setdefault(what, []).append(each)
            found[f"{form}, {layers}"] = {what: min(each) for what, each in taken.items()}
            save()


def depth_of(form: str, layers: int) -> dict[str, float]:
    run, params, x = gradient_of(16, layers, 64, 2, form)
    start = time.process_time()
    lowered = run.lower(params, x)
    traced = time.process_time()
    lowered.compile()
    compiled = time.process_time()
    init_fun, data = flows.Flow(flows.GlowImage(layers, 64, 2, **FORMS[form])), images(MEASURED, 16)
    flows.clear_caches(), jax.clear_caches()
    first, again = (seconds(lambda key=key: init_fun(key, (16, 16, 3), init_inputs=data).params, 1) for key in (1, 2))
    return {"trace": traced - start, "compile": compiled - traced, "init": first, "init again": again}


# Beside other libraries


def worker_of(script: str, python: Path, library: str, case: tuple[int, int, int, int], keeping: bool) -> Peer:
    """A Glow in a process of its own."""
    sizes = dict(zip(("side", "layers", "width", "levels"), case, strict=True)) | {"batch": BATCH}
    command = [python / "bin" / "python", ROOT / "benchmarks" / "peers" / script, library, options.core, json.dumps(sizes)]
    return Peer(library, command, {each: value for each, value in os.environ.items() if keeping or each not in KEEPING})


def of_peers(found: dict, save) -> None:
    for case in OF_PEERS:
        for keeping in (True, False):
            with ExitStack() as stack:
                workers = [
                    *(worker_of("glow_flows.py", ROOT / ".venv", form, case, keeping) for form in FORMS),
                    *(worker_of("glow_torch.py", ROOT / options.torch, library, case, keeping) for library in LIBRARIES),
                ]
                for worker in workers:
                    stack.enter_context(worker)
                times = {worker.name: max(1, round(LEAST / worker.ask("step", 2)["cpu"])) for worker in workers}
                turns: dict[str, list[float]] = {worker.name: [] for worker in workers}
                for _ in range(options.repeats):
                    for worker in workers:
                        turns[worker.name].append(worker.ask("step", times[worker.name])["cpu"])
                found[f"{named(*case)}, {'kept' if keeping else 'given back'}"] = {
                    worker.name: {"step": turns[worker.name], **worker.start, **worker.ask("memory")} for worker in workers
                }
            save()


# Tables


def over(a: list[float], b: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(a, b, strict=True))


def tables(found: dict) -> str:
    lines = []
    if part := found.get("floor"):
        lines += ["| ms of a step | floor | once more | unrolled | loop | reversible |", "|---" * 6 + "|"]
        for case, own in part.items():
            both = [own["floor"], own["floor, again"]]
            cells = [f"{1e3 * statistics.median(each):.3g}" for each in (*both, *(own[form] for form in FORMS))]
            lines.append(f"| {case} | {' | '.join(cells)} |")
            for again, said in enumerate(("over the floor", "over the floor once more")):
                cells = [f"{over(own[form], both[again]):.2f}" for form in FORMS]
                lines.append(f"| {said} | | | {' | '.join(cells)} |")
    for case, own in found.get("memory", {}).items():
        few, many = OF_MEMORY
        lines += ["", f"| {case}: MiB | {few} steps | {many} steps | ratio | with params and gradients |", "|---" * 5 + "|"]
        for form in FORMS:
            temps, params = ([own[f"{form}, {n}"][what] / 2**20 for n in OF_MEMORY] for what in ("temp", "params"))
            whole = [temp + 2 * each for temp, each in zip(temps, params, strict=True)]
            ratios = f"{temps[1] / temps[0]:.2f} | {whole[0]:.1f}, {whole[1]:.1f}"
            lines.append(f"| {form} | {temps[0]:.1f} | {temps[1]:.1f} | {ratios} |")
        for n in OF_MEMORY:
            off = ", ".join(f"{what} {each:.1e}" for what, each in own[f"off, {n}"].items())
            lines.append(f"reversible against the loop, {n} steps, relative: {off}")
    if part := found.get("depth"):
        few, many = DEPTHS
        lines += ["", f"| seconds | {few} steps | {many} steps | ratio |", "|---" * 4 + "|"]
        for form in ("loop", "reversible"):
            both = [part[f"{form}, {n}"] for n in DEPTHS]
            both = [{**own, "trace and compile": own["trace"] + own["compile"]} for own in both]
            both = [{**own, "init, but for its run": own["init"] - own["init again"]} for own in both]
            for what in both[0]:
                values = [own[what] for own in both]
                lines.append(f"| {form}: {what} | {values[0]:.2f} | {values[1]:.2f} | {values[1] / values[0]:.2f} |")
    for case, own in found.get("peers", {}).items():
        lines += ["", f"| {case} | images a second | of the fastest other | MiB | trained numbers | first step, s |"]
        lines.append("|---" * 6 + "|")
        fastest = min(LIBRARIES, key=lambda library: statistics.median(own[library]["step"]))
        for library, each in own.items():
            rate = BATCH / statistics.median(each["step"])
            cells = [f"{rate:.0f}", f"{over(own[fastest]['step'], each['step']):.2f}", f"{each['memory']:.0f}",
                     f"{each['num_params']:,}", f"{each['first']:.1f}"]  # fmt: skip
            lines.append(f"| {library} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    found = records.read(options.out)

    def save() -> None:
        (processor,) = {
            line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
        }
        found["machine"] = {"processor": processor, "jax": jax.__version__, "python": platform.python_version()}
        records.write(options.out, found)

    if not options.table:
        for part in options.part:
            {"floor": of_floor, "memory": of_memory, "depth": of_depth, "peers": of_peers}[part](
                found.setdefault(part, {}), save
            )
    print(tables(found))


if __name__ == "__main__":
    main()
