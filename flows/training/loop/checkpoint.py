"""The file that a fit leaves on disk while it runs, from which it can go on."""

import os
import sys
import time
from typing import Any

import jax
import numpy as np

from flows.core import FlowsError, warn_user
from flows.persistence.container import DTYPES, INTEGERS, MAX_RECORD, blamed_on, read, sweep, write
from flows.training.devices import devices
from flows.training.options import Options

FORMAT = 2
NAME = "fit.flows"
ENTRIES = {"kind", "flows", "format", "settings", "record"}  # and perhaps "stream": the states of iterables


class Checkpoint:
    """One file in a folder: all arrays of the training at the end of an epoch, the losses, and the settings of the fit."""

    def __init__(self, options: Options, settings: dict[str, Any]):
        self.folder, self.settings, self.every = os.fsdecode(options.checkpoint), settings, options.checkpoint_every
        self.path, self.last, self.saved = os.path.join(self.folder, NAME), time.monotonic(), False
        if devices().first:
            try:
                os.makedirs(self.folder, exist_ok=True)
                sweep(self.folder)
            except OSError as error:
                why = f"fit: checkpoint={self.folder!r} is not a folder that can be written: {error.strerror}"
                raise FlowsError(why) from error
        devices().see(self.folder)

    def load(self, like: Any) -> tuple[Any, list[dict[str, Any]], list[Any] | None] | None:
        """The last saved state, record and states of iterables, or None without a file. `like` is a state with the expected
        leaves."""
        if not os.path.exists(self.path):
            return None
        header, tensors = read(self.path, MAX_RECORD)
        with blamed_on(f"fit: {self.path!r} is not a checkpoint that this version of flows can go on from"):
            if set(header) - {"stream"} != ENTRIES or header["kind"] != "fit" or header["format"] != FORMAT:
                raise FlowsError(f"its header has {sorted(header)}")
            both = [(name, header["settings"].get(name), now) for name, now in self.settings.items()]
            changes = [(name, f"{name} was {was!r:.100}, now {now!r:.100}") for name, was, now in both if was != now]
            if changes:
                said = "; ".join("it has other rows of data, groups or order" if it == "data" else text for it, text in changes)
                raise FlowsError(f"it is of another fit: {said}. Give another folder, or delete the file")
            leaves, tree = jax.tree.flatten(like)
            names = _names(like)
            got = {name: (tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()}
            expected = {name: (leaf.dtype.name, leaf.shape) for name, leaf in zip(names, leaves, strict=True)}
            if got != expected:
                wrong = sorted(name for name, _ in got.items() ^ expected.items())[:3]
                raise FlowsError(f"its arrays do not belong to this model and optimizer: {wrong}")
            state = jax.tree.unflatten(tree, jax.device_put([tensors[name] for name in names]))
            return state, header["record"], header.get("stream")

    @property
    def due(self) -> bool:
        """True if the file is at least `every` seconds old."""
        return time.monotonic() >= self.last + self.every

    def save(self, state: Any, record: list[dict[str, Any]], stream: list[Any] | None = None) -> None:
        arrays = dict(zip(_names(state), map(np.asarray, jax.device_get(jax.tree.leaves(state))), strict=True))
        known = {np.dtype(dtype).name for dtype in (DTYPES | INTEGERS).values()}
        if unknown := {name: array.dtype for name, array in arrays.items() if array.dtype.name not in known}:
            raise FlowsError(f"fit: a checkpoint cannot hold these leaves of the optimizer's state: {unknown}")
        version = sys.modules["flows"].__version__  # not imported: `flows` imports this file
        header = {"kind": "fit", "flows": version, "format": FORMAT, "settings": self.settings, "record": record}
        header |= {} if stream is None else {"stream": stream}
        try:
            write(self.path, header, arrays, MAX_RECORD)
        except FlowsError as error:
            if not self.saved:
                raise
            # The fit goes on: hours of training are worth more than this file, and the next save may succeed.
            warn_user(f"fit: the checkpoint was not saved, and its file is of an earlier epoch: {error}")
        self.saved, self.last = True, time.monotonic()


def _names(tree: Any) -> list[str]:
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [f"{i} {jax.tree_util.keystr(path, simple=True, separator='/')}" for i, path in enumerate(paths)]
