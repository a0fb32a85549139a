"""Files of tensors under a header of JSON, each one safetensors file, written whole or not at all.

`__metadata__` of the safetensors header has one key, "flows", a JSON text `{"file_sha256": ..., "header": {...}}`. The digest
is of the whole file, with 64 zeros in place of the digest. That place is the same in every file, so damage anywhere is
found before anything is parsed. Nothing in a file is run.
"""

import hashlib
import io
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from flows.core import FlowsError

DTYPES = {"BF16": jnp.bfloat16, "F16": np.float16, "F32": np.float32, "F64": np.float64}  # by safetensors' names
INTEGERS = {"BOOL": np.bool_, "I32": np.int32, "I64": np.int64, "U8": np.uint8, "U32": np.uint32}
START = b'{"__metadata__":{"flows":"{\\"file_sha256\\":\\"'
DIGEST = slice(8 + len(START), 8 + len(START) + 64)  # the first 8 bytes are the length of safetensors' header
# Bytes of a model's header, which has the constructor alone; and of a checkpoint's header, which has the losses of all epochs.
MAX_HEADER, MAX_RECORD = 2**20, 100_000_000
OLD = 60.0  # seconds after which a temporary file is no longer being written
TEMPORARY = ".flows-", ".tmp"  # how the name of a file begins and ends while it is written


class Content(io.BytesIO):
    """The content of a file in memory, read from it or to be written to it."""

    def __repr__(self) -> str:
        return "the file given"


def write(path: str | BinaryIO, header: dict[str, Any], tensors: dict[str, np.ndarray], most: int = MAX_HEADER) -> None:
    """Write one file, whole or not at all; a file that is open gets all at once."""
    text = json.dumps({"file_sha256": "0" * 64, "header": header}, sort_keys=True, separators=(",", ":"))
    data = bytearray(safetensors.numpy.save(tensors, {"flows": text}))
    if not data.startswith(START, 8) or int.from_bytes(data[:8], "little") > most:
        raise FlowsError(
            f"cannot write {path!r}: its header has {len(text)} characters, more than can be read; keep data in params, out of "
            "the arguments of constructors"
        )
    data[DIGEST] = _digest(data)
    if isinstance(path, str):
        with replacement(path, f", with room for {len(data):,} bytes") as file:
            file.write(data)
        return
    try:
        written = path.write(data)
    except (OSError, ValueError, TypeError) as error:
        raise FlowsError(f"cannot write to {path!r:.80}: {error}. Expected a binary file that is open for writing") from error
    if written is not None and written < len(data):
        raise FlowsError(f"{path!r:.80} took {written:,} of {len(data):,} bytes; expected a file that is buffered")


def read(path: str | Content, most: int = MAX_HEADER) -> tuple[Any, dict[str, np.ndarray]]:
    """Header and tensors; a large foreign file is not read, and nothing parsed, before the digest holds."""
    try:
        with open(path, "rb") if isinstance(path, str) else Content(path.getvalue()) as file:
            data = file.read(DIGEST.stop)
            data += file.read() if data.startswith(START, 8) else b""
    except (OSError, ValueError) as error:
        raise FlowsError(f"cannot read {path!r}: {getattr(error, 'strerror', None) or error}") from error
    if not data.startswith(START, 8):
        raise FlowsError(f"{path!r} is not a file that flows wrote, or its start is {'damaged' if data else 'missing'}")
    if _digest(data) != data[DIGEST]:
        raise FlowsError(f"{path!r} is damaged or cut short: its sha256 is not the sha256 of the file saved. Use another copy")
    with blamed_on(f"{path!r} is not a file that this version of flows can read"):
        if (length := int.from_bytes(data[:8], "little")) > most:
            raise FlowsError(f"its header has {length:,} bytes, expected at most {most:,}")
        raw = json.loads(data[8 : 8 + length])
        header = json.loads(raw["__metadata__"]["flows"])["header"]
        kinds, tensors = DTYPES | INTEGERS, dict(safetensors.deserialize(data))
        return header, {name: np.ndarray(x["shape"], kinds[x["dtype"]], x["data"]) for name, x in tensors.items()}


def sweep(folder: str) -> None:
    """Remove what a process that was killed while it wrote has left there."""
    names = [name for name in os.listdir(folder) if name.startswith(TEMPORARY[0]) and name.endswith(TEMPORARY[1])]
    for left in (os.path.join(folder, name) for name in names):
        with suppress(OSError):
            if time.time() > os.path.getmtime(left) + OLD:
                os.unlink(left)


def _digest(data: bytes | bytearray) -> bytes:
    digest = hashlib.sha256(memoryview(data)[: DIGEST.start])
    digest.update(b"0" * 64)
    digest.update(memoryview(data)[DIGEST.stop :])
    return digest.hexdigest().encode()


@contextmanager
def replacement(path: str, room: str = "") -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` once it is whole, and synced: a failure leaves what was there before.

    Args:
        room: the space that is needed, for errors.
    """
    temporary, folder = "", ""
    try:
        target = os.path.realpath(path)  # a link stays a link
        exists, folder = os.path.exists(target), os.path.dirname(target)
        if not os.path.basename(path) or (exists and not (os.path.isfile(target) and os.access(target, os.W_OK))):
            raise OSError("it is a folder, a device or a write-protected file")
        with suppress(OSError):  # some folders can be written to and not listed
            sweep(folder)
        temporary = os.path.join(folder, secrets.token_hex(8).join(TEMPORARY))
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if exists:
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except (OSError, ValueError) as error:
        if isinstance(error, FlowsError):
            raise
        remedy = f"Expected a file name in a folder that exists, that you may write to{room}"
        raise FlowsError(f"cannot write {path!r}: {getattr(error, 'strerror', None) or error}. {remedy}") from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)
    with suppress(OSError):  # some file systems cannot sync a folder; the file is whole either way
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def blamed_on(what: str) -> Iterator[None]:
    """Turn any error that content from outside raises in a parser or a constructor into one that names the content."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, FlowsError) else f"{type(error).__name__}: "
        raise FlowsError(f"{what}: {kind}{error}") from error
