"""The inverse of an autoregressive layer, as a multiple of its forward pass: in float32, interleaved in one run, on one thread.

    python benchmarks/inverse.py              # all sizes; a few minutes
    python benchmarks/inverse.py --rows 1000 --repeats 5

"pass for each feature" is the inverse of the same layer with its network hidden in a plain function, which is what the
inverse of other libraries does. Both inverses include their log-determinant. Prints a Markdown table and writes it.
"""

import argparse
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--rows", type=int, default=10_000)
parser.add_argument("--repeats", type=int, default=15)
parser.add_argument("--only", default="", help="sizes with this in their name")
parser.add_argument("--no-loop", action="store_true", help="leave the pass for each feature out")
parser.add_argument("--out", type=Path, default=Path("out"))
options = parser.parse_args()
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before jax starts its threads

import jax  # noqa: E402
import numpy as np  # noqa: E402

import flows  # noqa: E402
from flows.conditioners import MaskedMLP, MaskedResidual  # noqa: E402
from flows.transformers import Affine, RationalQuadratic  # noqa: E402

# d, network, transformer, context_dim, and how many forward passes the inverse may take
CASES = {
    "d = 63, 512-512, affine": (63, MaskedMLP(512, 512), Affine(), 0, 3),
    "d = 63, 512-512, spline": (63, MaskedMLP(512, 512), RationalQuadratic(8), 0, 3),
    "d = 21, 128-128, affine": (21, MaskedMLP(128, 128), Affine(), 0, 4),
    "d = 21, 128-128, spline": (21, MaskedMLP(128, 128), RationalQuadratic(8), 0, 4),
    "d = 21, residual 128, affine": (21, MaskedResidual(128), Affine(), 0, 4),
    "d = 21, residual 128, spline, context of 5": (21, MaskedResidual(128), RationalQuadratic(8), 5, 4),
    "d = 21, 128-128, affine, reversed order": (21, MaskedMLP(128, 128, order=tuple(range(21))[::-1]), Affine(), 0, 4),
    "d = 8, 128-128, affine": (8, MaskedMLP(128, 128), Affine(), 0, 5),
    "d = 8, 128-128, spline": (8, MaskedMLP(128, 128), RationalQuadratic(8), 0, 5),
}


def hidden_in_a_function(net):
    """The same network, of whose masks the layer knows nothing."""

    def plain(rng, input_dim, output_dim, context_dim=0):
        params, apply_fun = net(rng, input_dim, output_dim, **({"context_dim": context_dim} if context_dim else {}))

        def apply(params, inputs, context=None):
            return apply_fun(params, inputs, **({} if context is None else {"context": context}))

        return params, apply

    return plain


def measure(d, net, transformer, context_dim):
    """Medians over the repeats of the times of the inverse and of the loop by that of the forward pass."""
    params, direct_fun, inverse_fun = flows.Autoregressive(net, transformer)(0, d, context_dim=context_dim)
    params = jax.tree.map(
        lambda leaf: leaf + 0.02 * np.cos(np.arange(leaf.size)).reshape(leaf.shape).astype(leaf.dtype), params
    )
    rng = np.random.default_rng(0)
    x = jax.numpy.asarray(rng.normal(size=(options.rows, d)).astype(np.float32))
    given = {"context": jax.numpy.asarray(rng.normal(size=(options.rows, context_dim)), np.float32)} if context_dim else {}
    functions = [jax.jit(direct_fun), jax.jit(inverse_fun)]
    if not options.no_loop and net.arguments["order"] is None:  # of another order, the loop would know nothing
        loop = flows.Autoregressive(hidden_in_a_function(net), transformer)(0, d, context_dim=context_dim)
        functions.append(jax.jit(loop.inverse_fun))
    y = jax.block_until_ready(functions[0](params, x, **given))[0]
    for function in functions[1:]:
        back = jax.block_until_ready(function(params, y, **given))[0]
        assert float(abs(back - x).max()) < 1e-3, float(abs(back - x).max())
    times: list[list[float]] = [[] for _ in functions]
    for i in range(options.repeats):
        for j, (own, function) in enumerate(zip(times, functions, strict=True)):
            if j == 2 and i % 5:
                continue  # it takes long
            start = time.perf_counter()
            jax.block_until_ready(function(params, y, **given))
            own.append(time.perf_counter() - start)
    return [float(np.median(own)) for own in times]


def main():
    lines = [
        "| layer | forward, ms | inverse by forward | allowed | pass for each feature by forward |",
        "|---|---|---|---|---|",
    ]
    for name, (d, net, transformer, context_dim, allowed) in CASES.items():
        if options.only not in name:
            continue
        forward, inverse, *loop = measure(d, net, transformer, context_dim)
        ratio = f"{loop[0] / forward:.1f}" if loop else ""
        lines.append(f"| {name} | {forward * 1e3:.1f} | {inverse / forward:.2f} | {allowed} | {ratio} |")
        print(lines[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "inverse.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
