"""Running a simulator for many draws of a prior: as one JAX program, or row by row in other processes."""

import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from multiprocessing.reduction import ForkingPickler
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from flows.core import Array, FlowsError, as_key, explained_call, positive_int
from flows.results.pieces import by_pieces
from flows.sbi.prior import TOGETHER, Prior
from flows.sbi.simulations import FAILED, Simulations, Store, locked

SECONDS = 0.5  # of a task
MOST_OF_TASK = 10_000  # rows
AT_ONCE = 64  # tasks of an executor whose workers are not known
FAILURES = ("raise", "nan")


@explained_call('flows.sbi.simulate(0, prior, simulator, 1_000, path="runs")')
def simulate(
    rng: Any,
    prior: Prior,
    simulator: Callable,
    n: int,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    path: Any = None,
    failed: str = "raise",
    verbose: int = 1,
) -> Simulations:
    """Draw parameters from a prior, and run a simulator for each.

    Row i depends on rng and i alone: not on n, on workers, or on whether a run was killed and went on. A JAX simulator runs in
    blocks of 1,000 rows. Any other simulator runs row by row, in tasks of about half a second.

    Args:
        rng: key or seed.
        prior: a `Prior`.
        simulator: without workers a JAX function of one row, `simulator(key, theta) -> x`, which is vmapped and compiled. With
            workers or an executor any function `simulator(rng, theta) -> x` of a `numpy.random.Generator`. theta is a dict of
            arrays where parameters have names, else a vector; x is a number or an array, of one shape for all rows.
        n: the number of rows.
        workers: 0 for this process, or the number of processes, which import the module of the simulator.
        executor: a `concurrent.futures` executor instead, such as one of loky (in notebooks), of Dask or of mpi4py.
        path: a folder, where rows are kept. The same call goes on after a kill, and a larger n adds rows. Whether the
            simulator is the same is for you to know.
        failed: "raise" to stop at a row that raises an error, or "nan" to record it as NaN.
        verbose: 0 for no bar.

    Returns:
        `Simulations`, of which `fit_posterior` leaves out rows that are not finite.

    Errors:
        FlowsError: a row that raises, or has another shape or dtype than the first; a simulator that is not JAX without
            workers; one that cannot be sent to processes; a worker that was killed; a folder that is damaged, of another prior
            or rng, or that another call is writing to.

    Example:
        >>> import flows, jax
        >>> prior = flows.sbi.Prior({"mean": flows.Normal()})
        >>> flows.sbi.simulate(0, prior, lambda key, theta: theta["mean"] + jax.random.normal(key, (4,)), 10, verbose=0)
        Simulations of 10 rows: theta (10, 1), x (10, 4)
    """
    if not isinstance(prior, Prior) or not callable(simulator):
        raise TypeError(f"simulate: got {prior!r:.40} and {simulator!r:.40}; expected simulate(rng, prior, simulator, n)")
    if failed not in FAILURES:
        raise FlowsError(f"simulate: failed is {failed!r:.40}; expected one of {', '.join(map(repr, FAILURES))}")
    if workers is not None and executor is not None:
        raise TypeError("simulate: got workers and executor; expected one of them")
    workers = positive_int(workers, "simulate: workers") if workers not in (None, 0) or workers is False else workers
    key, n = as_key(rng), positive_int(n, "simulate: n")
    theta_key, x_key = jax.random.split(key)
    in_jax = workers is None and executor is None
    if workers:
        _check_sendable(simulator)
    program = _jax_program(simulator, prior) if in_jax else None
    with ExitStack() as stack:
        stack.enter_context(locked(path))
        store = Store(path, prior, key, n, (0, FAILED) if failed == "raise" else (0,))
        bar = tqdm(total=n, initial=n - len(store.left), desc="simulations", unit="row", disable=not verbose)
        stack.enter_context(bar)
        if program is not None:
            _in_blocks(program, prior, theta_key, x_key, store, bar)
        else:
            if workers:
                spawn = multiprocessing.get_context("spawn")
                executor = stack.enter_context(ProcessPoolExecutor(workers, mp_context=spawn))
            words = np.asarray(jax.random.key_data(x_key)).ravel().tolist()
            rows = Rows(simulator, prior, theta_key, words, store, failed)
            _in_tasks(rows, executor, workers or 0, bar)
    return store.simulations()


def in_any_way(rng: Any, prior: Prior, simulator: Callable, n: int) -> Simulations:
    """Return simulations by a simulator in JAX, or by any other in this process."""
    try:
        _jax_program(simulator, prior)
    except FlowsError as error:
        try:
            return simulate(rng, prior, simulator, n, workers=0, failed="nan", verbose=0)
        except FlowsError:  # no row runs in any way: a mistake in JAX is the likely one
            raise error from None
    return simulate(rng, prior, simulator, n, verbose=0)


def _jax_program(simulator: Callable, prior: Prior) -> Callable:
    """Return a function of a key, numbers of rows and vectors, which returns x with rows last; refuse what is not JAX."""

    def row(key: Array, number: Array, vector: Array) -> Array:
        theta = vector if prior.named is None else prior.named.natural(vector)
        x = simulator(jax.random.fold_in(key, number), theta)
        if isinstance(x, tuple | list | dict):
            raise TypeError(f"it returns a {type(x).__name__}; expected one array")
        return jax.numpy.asarray(x)

    try:
        like = jax.eval_shape(row, jax.random.key(0), np.uint32(0), np.zeros(prior.size, np.float32))
    except Exception as error:
        raise FlowsError(
            f"simulate: the simulator is not a JAX function of a key and one row of theta ({type(error).__name__}: "
            f"{error!s:.200}). For NumPy or any other Python give workers=0, or a number of processes: it is then called with "
            "a numpy.random.Generator"
        ) from error
    if like.dtype.kind not in "fiub":
        raise FlowsError(f"simulate: the simulator returned {like.dtype}; expected real numbers")
    return jax.jit(jax.vmap(row, (None, 0, 0), out_axes=-1))


def _in_blocks(program: Callable, prior: Prior, theta_key: Array, x_key: Array, store: Store, bar: Any) -> None:
    left = store.left
    for block in np.unique(left // TOGETHER):
        numbers = np.arange(block * TOGETHER, (block + 1) * TOGETHER)
        theta = prior.rows(theta_key, numbers)
        x = by_pieces(lambda i, vectors: program(x_key, i, vectors), numbers.astype(np.uint32), theta)
        x = _numbers(x).reshape(-1, TOGETHER).T.reshape(TOGETHER, *(x.shape[:-1] or (1,)))
        here = left[left // TOGETHER == block]
        store.write(here, theta[here - numbers[0]], x[here - numbers[0]])
        bar.update(len(here))


class Rows:
    """Rows of a simulator in Python: their parameters, their tasks, and what came back."""

    def __init__(self, simulator: Callable, prior: Prior, key: Array, words: list[int], store: Store, failed: str):
        self.simulator, self.prior, self.key, self.words, self.store, self.failed = simulator, prior, key, words, store, failed
        self.vectors = dict[int, np.ndarray]()

    def task(self, numbers: Sequence[int]) -> tuple[Any, ...]:
        """Return the arguments of `_run`."""
        if missing := [i for i in numbers if i not in self.vectors]:
            block = np.unique(np.array(missing) // TOGETHER)
            ahead = (block[:, None] * TOGETHER + np.arange(TOGETHER)).ravel()
            self.vectors |= dict(zip(ahead.tolist(), self.prior.rows(self.key, ahead), strict=True))
        return self.simulator, self.words, list(numbers), [self._as_called(self.vectors[i]) for i in numbers]

    def _as_called(self, vector: np.ndarray) -> Any:
        vector = vector.astype(np.float64)
        return vector if self.prior.named is None else {k: a[()] for k, a in self.prior.named.natural(vector).items()}

    def take(self, numbers: Sequence[int], outputs: Sequence[Any]) -> None:
        """Write what a task returned, up to the first row that is refused."""
        rows, refusal = list[np.ndarray | None](), None
        for i, output in zip(numbers, outputs, strict=False):
            if isinstance(output, str) and self.failed == "raise":
                refusal = f"row {i} raised {output}. failed='nan' records such rows as NaN"
            elif not isinstance(output, str):
                refusal = self._fault(i, output, next((row for row in rows if row is not None), None))
            if refusal is not None:
                break
            rows.append(None if isinstance(output, str) else _numbers(np.atleast_1d(output)))
        done = list(numbers[: len(rows)])
        self.store.write(np.array(done, int), np.stack([self.vectors[i] for i in done]) if done else np.zeros((0, 1)), rows)
        if refusal is not None:
            theta = self._as_called(self.vectors[numbers[len(rows)]])
            raise FlowsError(f"simulate: {refusal}; theta is {theta!s:.200}{self._left}")
        for i in numbers:
            self.vectors.pop(i, None)

    def _fault(self, i: int, output: np.ndarray, first: np.ndarray | None) -> str | None:
        if output.dtype.kind not in "fiub" or not output.size:
            return f"row {i} is of dtype {output.dtype} and shape {output.shape}; expected real numbers"
        like = first if self.store.x is None else self.store.x[0]
        shape = np.atleast_1d(output).shape
        if like is not None and shape != like.shape:
            return f"row {i} has shape {shape}, and earlier rows {like.shape}; expected one shape (sets are padded by as_sets)"
        if like is not None and _numbers(output).dtype.itemsize > like.dtype.itemsize:
            return f"row {i} is of dtype {output.dtype}, and earlier rows {like.dtype}; expected one dtype"
        return None

    @property
    def _left(self) -> str:
        done = int((self.store.done > 0).sum())
        return f". {done:,} rows are done, and in the folder" if self.store.folder is not None else ""

    def broken(self) -> FlowsError:
        """Return the error of a pool that lost a process."""
        done = (self.store.done > 0).any()
        why = (
            "a worker was killed, by the simulator or for memory"
            if done
            else "the workers ended before their first row: they could not import the simulator (in a notebook, give a loky "
            "executor), or a script lacks `if __name__ == '__main__':` around its calls, or the simulator killed them"
        )
        return FlowsError(f"simulate: {why}{self._left}. workers=0 runs it here")


def _in_tasks(rows: Rows, executor: Executor | None, workers: int, bar: Any) -> None:
    left, size, flying = rows.store.left.tolist(), 1, dict[Future, Sequence[int]]()
    window, at = (2 * workers or AT_ONCE) if executor is not None else 1, 0
    try:
        while at < len(left) or flying:
            while at < len(left) and len(flying) < window:
                numbers = left[at : at + min(size, math.ceil((len(left) - at) / max(window, 1)))]
                at += len(numbers)
                flying[_submitted(executor, rows.task(numbers))] = numbers
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                outputs, seconds = _by_executor(future.result)
                numbers = flying.pop(future)
                rows.take(numbers, outputs)
                bar.update(len(numbers))
                size = min(max(int(SECONDS * len(numbers) / max(seconds, 1e-6)), 1), MOST_OF_TASK)
    except BrokenExecutor:
        raise rows.broken() from None
    finally:
        for future in flying:
            future.cancel()


def _submitted(executor: Executor | None, arguments: tuple[Any, ...]) -> Future:
    if executor is not None:
        return _by_executor(executor.submit, _run, *arguments)
    future = Future[Any]()
    future.set_result(_run(*arguments))
    return future


def _by_executor(call: Callable, *arguments: Any) -> Any:
    """Call an executor, whose own errors are of tasks that it cannot send; errors of a simulator are returned as texts."""
    try:
        return call(*arguments)
    except BrokenExecutor:
        raise
    except Exception as error:
        raise FlowsError(
            f"simulate: the executor cannot run the simulator ({type(error).__name__}: {error!s:.200}). Where it cannot be "
            "pickled, define it at the top of a module, or give loky.get_reusable_executor() or workers=0"
        ) from error


def _run(simulator: Callable, words: list[int], numbers: list[int], thetas: list[Any]) -> tuple[list[Any], float]:
    """Run a simulator for some rows; return arrays, or texts of errors, and the seconds that it took."""
    began, outputs = time.perf_counter(), list[Any]()
    for i, theta in zip(numbers, thetas, strict=True):
        try:
            outputs.append(np.asarray(simulator(np.random.default_rng([*words, i]), theta)))
        except (Exception, SystemExit) as error:
            outputs.append(f"{type(error).__name__}: {error!s:.300}")
    return outputs, time.perf_counter() - began


def _numbers(x: np.ndarray) -> np.ndarray:
    """Return numbers in float32 where they have no more digits, else in float64."""
    return x.astype(np.float32 if x.dtype.kind == "f" and x.dtype.itemsize <= 4 else np.float64)


def _check_sendable(simulator: Callable) -> None:
    """Refuse what cannot be sent to processes, and a call within one that is still starting."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise FlowsError("simulate: a script that starts processes needs `if __name__ == '__main__':` around its calls")
    try:
        ForkingPickler.dumps(simulator)
    except Exception as error:
        raise FlowsError(
            f"simulate: the simulator cannot be sent to other processes ({error!s:.200}). Define it at the top of a module, or "
            "give workers=0, or an executor such as loky.get_reusable_executor()"
        ) from None
