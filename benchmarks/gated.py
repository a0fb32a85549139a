"""The network of Flow++ (`GatedConv`) in a coupling, as a multiple of its bare convolutions and products; compiling by depth.

    python benchmarks/gated.py
    python benchmarks/gated.py --torch .venv-torch   # the whole coupling beside a plain transcription in torch

Two blocks and four heads, affine couplings of 12 channels; a step is the gradient of the mean log-density. The floor has the
same convolutions and products, forwards and backwards, and nothing else. Runs take turns, seven times, on one core; medians of
CPU ms, and of ratios in turns. Prints the table of benchmarks/speed.md. With --torch the coupling is by mixtures of 8 logistic
distributions, and draws are made, too.
"""

import argparse
import json
import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from processes import Peer

import flows
from flows.conditioners import GatedConv, conv
from flows.transformers import MixtureCDF

HERE = Path(__file__).resolve().parent
HEADS, CHANNELS, TURNS, PARTS = 4, 6, 7, 8
SIZES = ((64, 7, 64), (64, 16, 16), (256, 7, 16), (256, 16, 4))  # width, side, images


def bare(width: int, side: int, blocks: int) -> tuple[Any, Callable]:
    """Kernels, and the convolutions and products of a network with them."""
    key, places = jax.random.key(0), side * side

    def kernel(k: int, inputs: int, outputs: int) -> jax.Array:
        return jax.random.normal(key, (k, k, inputs, outputs)) / (k * k * inputs) ** 0.5

    sizes = {"conv": (3, 2 * width, width), "gate": (1, 2 * width, 2 * width)}
    sizes |= {"qkv": (1, width, 3 * width), "mixed": (1, width, 2 * width)}
    kernels = {"first": kernel(3, CHANNELS, width), "last": kernel(3, width, 2 * CHANNELS)}
    kernels["blocks"] = [{name: kernel(*size) for name, size in sizes.items()} for _ in range(blocks)]

    def apply(kernels: Any, x: jax.Array) -> jax.Array:
        h = conv(kernels["first"], x)
        for block in kernels["blocks"]:
            a = conv(block["conv"], jnp.concatenate([h, h], -1))
            h = conv(block["gate"], jnp.concatenate([a, a], -1))[..., :width]
            qkv = conv(block["qkv"], h).reshape(-1, places, 3, HEADS, width // HEADS).transpose(2, 0, 3, 1, 4)
            weights = jnp.einsum("bhqd,bhkd->bhqk", qkv[0], qkv[1], precision="highest")
            mean = jnp.einsum("bhqk,bhkd->bhqd", weights, qkv[2], precision="highest")
            h = conv(block["mixed"], mean.transpose(0, 2, 1, 3).reshape(h.shape))[..., :width]
        return conv(kernels["last"], h)

    return kernels, apply


def measure(width: int, side: int, images: int) -> str:
    kernels, apply = bare(width, side, 2)
    x = jax.random.normal(jax.random.key(1), (images, side, side, 2 * CHANNELS))
    params, log_pdf, _ = flows.Flow(flows.Coupling(GatedConv(width, 2, HEADS)))(0, x.shape[1:])
    runs: dict[str, tuple[Callable, Any]] = {
        "floor": (jax.jit(jax.grad(lambda kernels: jnp.square(apply(kernels, x[..., :CHANNELS])).mean())), kernels),
        "step": (jax.jit(jax.grad(lambda params: -log_pdf(params, x).mean())), params),
        "floor forwards": (jax.jit(lambda kernels: apply(kernels, x[..., :CHANNELS])), kernels),
        "log_pdf": (jax.jit(lambda params: log_pdf(params, x)), params),
    }
    for function, argument in runs.values():
        jax.block_until_ready(function(argument))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, (function, argument) in runs.items():
            began = time.process_time()
            jax.block_until_ready(function(argument))
            times[name].append(1e3 * (time.process_time() - began))
    step, forwards = (
        np.median(np.divide(times[own], times[floor])) for own, floor in (("step", "floor"), ("log_pdf", "floor forwards"))
    )
    return f"| {width} | {side} x {side} | {np.median(times['step']):.0f} | {step:.2f} | {forwards:.2f} |"


def compiled(blocks: int) -> float:
    """CPU seconds to compile a step."""
    params, log_pdf, _ = flows.Flow(flows.Coupling(GatedConv(32, blocks, HEADS)))(0, (8, 8, 4))
    x = jnp.ones((8, 8, 8, 4))
    began = time.process_time()
    jax.jit(jax.grad(lambda params: log_pdf(params, x).mean())).lower(params).compile()
    return time.process_time() - began


def beside(python: Path, core: int, width: int, side: int, images: int) -> str:
    """A step and draws of the coupling, and of its transcription."""
    shape = side, side, 2 * CHANNELS
    params, log_pdf, sample = flows.Flow(flows.Coupling(GatedConv(width, 2, HEADS), MixtureCDF(PARTS)))(0, shape)
    x, key = jax.random.normal(jax.random.key(1), (images, *shape)), jax.random.key(2)
    step = jax.jit(jax.grad(lambda params: -log_pdf(params, x).mean()))
    runs, cells = {"step": lambda: step(params), "sample": lambda: sample(key, params, images)}, []
    sizes = {"width": width, "side": side, "images": images, "half": CHANNELS, "heads": HEADS, "parts": PARTS}
    for what, run in runs.items():
        command = [python / "bin" / "python", HERE / "peers" / "gated_torch.py", core, json.dumps(sizes | {"what": what})]
        with Peer("torch", command) as peer:
            times: dict[str, list[float]] = {"flows": [], "torch": []}
            jax.block_until_ready(run())
            for _ in range(TURNS):
                began = time.process_time()
                jax.block_until_ready(run())
                times["flows"].append(time.process_time() - began)
                times["torch"].append(peer.ask("step")["cpu"])
        ratio = np.median(np.divide(times["flows"], times["torch"]))
        cells.append(f"{1e3 * np.median(times['flows']):.0f} | {1e3 * np.median(times['torch']):.0f} | {ratio:.2f}")
    return f"| {width} | {side} x {side} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", type=Path, help="an environment with torch")
    parser.add_argument("--core", type=int, default=0)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    if options.torch:
        print("| width | places | step, ms | torch | ratio | draws, ms | torch | ratio |\n" + "|---" * 8 + "|")
        for size in SIZES:
            print(beside(options.torch, options.core, *size), flush=True)
        return
    print("| width | places | step, ms | of its floor | log-density, of its floor |\n" + "|---" * 5 + "|")
    for size in SIZES:
        print(measure(*size), flush=True)
    few, many = (min(compiled(blocks) for _ in range(2)) for blocks in (2, 10))
    print(f"compiling a step with 10 blocks: {many / few:.2f} times as long as with 2")


if __name__ == "__main__":
    main()
