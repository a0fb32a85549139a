"""The published settings on POWER: hours on a GPU, days on a processor, and the same command goes on where it stopped."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import records
from tabular_data import Split

import flows

MAF_PAPER = "Papamakarios et al., 2017, arXiv:1705.07057"
NSF_PAPER = "Durkan et al., 2019, arXiv:1906.04032"
NSF_STEPS = 400_000


class Setting(NamedTuple):
    init_fun: Any
    published: float  # test nats
    source: str
    batch_size: int
    optimizer: optax.GradientTransformation
    patience: int | None  # epochs; None to go on to the end
    steps: int | None = None  # in all; None for until patience ends


def affine(model, num_layers, published):
    optimizer = optax.chain(optax.add_decayed_weights(1e-6), optax.adam(1e-4))
    return Setting(flows.Flow(model(num_layers, (100, 100))), published, MAF_PAPER, 100, optimizer, 30)


def spline(autoregressive, published):
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(optax.cosine_decay_schedule(5e-4, NSF_STEPS)))
    model = flows.NSF(10, (256, 256), num_bins=8, bound=3.0, autoregressive=autoregressive, linear=True)
    return Setting(flows.Flow(model), published, NSF_PAPER, 512, optimizer, None, NSF_STEPS)


SETTINGS = {
    "RealNVP (5)": affine(flows.RealNVP, 5, -0.02),
    "RealNVP (10)": affine(flows.RealNVP, 10, 0.17),
    "MAF (5)": affine(flows.MAF, 5, 0.14),
    "MAF (10)": affine(flows.MAF, 10, 0.24),
    "NSF coupling": spline(False, 0.64),
    "NSF autoregressive": spline(True, 0.66),
}
MOST_EPOCHS = 10_000


def run(name: str, split: Split, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Trains one model, or goes on, and scores the best by validation rows on all test rows."""
    setting, start = SETTINGS[name], time.monotonic()
    epochs = -(-setting.steps // (len(split.train) // setting.batch_size)) if setting.steps else MOST_EPOCHS
    result = flows.fit(
        seed, setting.init_fun, split.train,
        validation=split.validation, batch_size=setting.batch_size, max_epochs=epochs, patience=setting.patience or epochs,
        optimizer=setting.optimizer, standardize=False, checkpoint=folder / f"paper {name}, seed {seed}", checkpoint_every=60.0,
    )  # fmt: skip
    rows = np.array_split(split.test, -(-len(split.test) // 10_000))
    nats = np.concatenate([np.asarray(result.log_pdf(result.params, each), float) for each in rows])
    return {
        "nats": nats.mean(), "standard error": nats.std() / len(nats) ** 0.5, "published": setting.published,
        "source": setting.source, "epochs": len(result.history["train_loss"]), "best epoch": int(result.history["best_epoch"]),
        "last call, hours": (time.monotonic() - start) / 3600, "device": jax.devices()[0].device_kind,
    }  # fmt: skip


def run_all(names: list[str], split: Split, folder: Path) -> None:
    """Writes paper.json and paper.md as each model ends."""
    file = folder / "paper.json"
    results = records.read(file)
    for name in names:
        print(f"{name}: {SETTINGS[name].init_fun}", flush=True)
        results[name] = found = run(name, split, folder)
        records.write(file, results)
        print(
            f"{name}: {found['nats']:.3f} +- {2 * found['standard error']:.3f} nats; published {found['published']}", flush=True
        )
    lines = ["| | test nats, +- 2 s.e. | published | epochs | device |", "|---|---|---|---|---|"]
    for name, found in results.items():
        nats = f"{found['nats']:.3f} +- {2 * found['standard error']:.3f}"
        lines.append(f"| {name} | {nats} | {found['published']} | {found['epochs']} | {found['device']} |")
    (folder / "paper.md").write_text("\n".join(lines) + "\n")
