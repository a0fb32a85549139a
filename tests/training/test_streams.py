"""Data that are never in memory whole: mapped from a file, or yielded batch by batch."""

import threading
from types import SimpleNamespace

import grain
import jax
import numpy as np
import pandas
import pytest
from common import error_of

import flows
from flows.diagnostics import enable_x64
from flows.persistence import container
from flows.training import fit, fit_ensemble
from flows.training.data import read as reading
from flows.training.data.read import read
from flows.training.data.table import Chunk, Rows, Table
from flows.training.devices import Placement, _joined
from flows.training.loop.epochs import Ready, StreamEpochs
from flows.training.options import Options

N = 6000
DATA = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
DATA[:, 1] = 5 + 2 * DATA[:, 0] + DATA[:, 1]
HELD_OUT = DATA[-500:]
AFFINE = flows.Flow(flows.Serial(flows.ActNorm(), flows.Coupling(flows.MLP(8))))
QUICK = {"max_epochs": 4, "batch_size": 100, "learning_rate": 0.02, "verbose": 0}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(reading, "CHUNK_BYTES", 16_000)  # 2,000 rows
    monkeypatch.setattr(reading, "BLOCK", 64)


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "data.npy", DATA)
    return np.load(tmp_path / "data.npy", mmap_mode="r")


class Batches:
    """Yields pieces of unequal length, from the start at each iter()."""

    def __init__(self, data=DATA, context=None):
        self.data, self.context, self.starts = data, context, 0

    def __iter__(self):
        self.starts += 1
        for i in range(0, len(self.data), 137):
            x = self.data[i : i + 137]
            yield x if self.context is None else (x, self.context[i : i + 137])


IN_ONE = SimpleNamespace(parts=lambda size: (1, size), shares=1, placement=Placement(), member=lambda order, i: order[i])


def in_batches_of(size):
    split = SimpleNamespace(batch_size=size, steps=1, stream=SimpleNamespace(restore=None))
    return SimpleNamespace(split=split, ready=lambda rows: rows, yardstick=None, event=(2,), train=None, held_out=None)


def odd_batches(batches):
    yield from batches


def same(a, b):
    return all(np.array_equal(p, q) for p, q in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True))


def best(result):
    return result.history["validation_loss"].min()


def test_a_mapped_file_is_fitted_as_well_as_an_array(mapped):
    in_memory, streamed = (fit(0, AFFINE, data, validation=HELD_OUT, **QUICK) for data in (DATA, mapped))
    assert best(streamed) == pytest.approx(best(in_memory), abs=0.02) and best(streamed) < 3.0
    np.testing.assert_allclose(streamed.params["bijection"]["fixed"]["mean"], DATA.mean(0), atol=1e-2)
    again = fit(0, AFFINE, mapped, validation=HELD_OUT, **QUICK)
    assert same(streamed, again)


def test_a_result_tells_all_rows_of_a_stream(mapped, monkeypatch):
    monkeypatch.setattr(reading, "LOOKED_AT", (1000, 2**24))
    settings = {**QUICK, "max_epochs": 1}
    result = fit(0, AFFINE, mapped, validation=0.2, **settings)
    assert result.history["rows"] + result.history["held_out"] == N
    assert repr(result).startswith("FitResult      4,784 rows of 2 columns")
    yielded = fit(0, AFFINE, Batches(), validation=HELD_OUT, steps_per_epoch=20, **settings)
    assert yielded.history["rows"] == 2000, "of an epoch"


def test_every_row_of_a_mapped_file_is_read_once_an_epoch_and_those_held_out_never(mapped):
    key = jax.random.key(3)
    data = read(mapped, Options(validation=0.2, batch_size=100), key)
    held_out = data.held_out.x
    epochs = [np.concatenate([chunk.take(slice(None)).numbers for chunk in data.stream.chunks(epoch)]) for epoch in range(4)]
    assert len(held_out) == pytest.approx(0.2 * N, abs=128)
    for numbers in epochs:
        assert len(numbers) == data.steps * 100 == len(set(numbers.tolist())) <= N - len(held_out)
    assert len(held_out) + len(set(np.concatenate(epochs).tolist())) == N
    chunk = next(iter(data.stream.chunks(0))).take(slice(None))
    np.testing.assert_array_equal(chunk.x, DATA[chunk.numbers])
    seen = {tuple(row) for row in DATA[epochs[0]]}
    assert not seen & {tuple(row) for row in held_out}
    assert not np.array_equal(epochs[0], epochs[1])


def test_batches_of_any_length_are_fitted_and_nothing_is_lost():
    batches = Batches()
    result = fit(0, AFFINE, batches, validation=HELD_OUT, steps_per_epoch=60, **QUICK)
    assert best(result) == pytest.approx(best(fit(0, AFFINE, DATA, validation=HELD_OUT, **QUICK)), abs=0.02)
    assert batches.starts >= 4
    options = Options(validation=HELD_OUT, batch_size=100, steps_per_epoch=25)
    split = read(Batches(), options, jax.random.key(0))
    rows = np.concatenate([chunk.take(slice(None)).x for epoch in range(6) for chunk in split.stream.chunks(epoch)])
    np.testing.assert_array_equal(rows, np.concatenate([DATA] * 3)[:15_000])


def test_streams_have_context_and_members(mapped):
    conditional = flows.Flow(flows.Coupling(flows.MLP(8)))
    context, seen = (1e3 * (rows[:, :1] + np.random.default_rng(0).normal(size=(len(rows), 1))) for rows in (DATA, HELD_OUT))
    validation = HELD_OUT, seen
    losses = [
        best(fit(0, conditional, DATA, context=context, validation=validation, **QUICK)),
        best(fit(0, conditional, mapped, context=context, validation=validation, **QUICK)),
        best(fit(0, conditional, Batches(DATA, context), steps_per_epoch=60, validation=validation, **QUICK)),
    ]
    assert max(losses) - min(losses) < 0.05
    listed = fit(0, conditional, mapped, context=context.tolist(), validation=validation, **QUICK)
    assert best(listed) == pytest.approx(losses[1], abs=1e-3)
    ensemble = fit_ensemble(0, AFFINE, mapped, members=2, validation=HELD_OUT, **QUICK)
    assert (ensemble.history["validation_loss"].min(1) < 3.0).all()
    each = ensemble.log_pdfs(ensemble.params, HELD_OUT)
    assert float(np.abs(each[0] - each[1]).max()) > 1e-4


def threads():
    """All but that of tqdm, which stays from the first bar on."""
    return [each for each in threading.enumerate() if each.name != "tqdm_monitor"]


def test_what_is_wrong_in_a_stream_is_an_error_and_ends_its_thread(mapped):
    bad = DATA.copy()
    bad[2003, 1] = np.nan
    before = threads()
    told = error_of(lambda: fit(0, AFFINE, Batches(bad), validation=HELD_OUT, steps_per_epoch=10, **QUICK))
    assert "a batch after row 1918 of data has nan in row 85, column 1" in told
    once = error_of(lambda: fit(0, AFFINE, iter(Batches()), validation=HELD_OUT, steps_per_epoch=25, **QUICK))
    assert "data ended in epoch 2; an iterator cannot start again" in once
    assert threads() == before
    for settings, words in (
        ({"steps_per_epoch": 60}, "give validation rows"),
        ({"validation": HELD_OUT}, "give steps_per_epoch"),
        ({"validation": HELD_OUT, "steps_per_epoch": 60, "context": DATA}, "has to yield the context in pairs"),
        ({"validation": HELD_OUT, "steps_per_epoch": 60, "weights": np.ones(N)}, "weights are for data in memory"),
        ({"validation": HELD_OUT, "steps_per_epoch": 600}, "data ended before the 60000 rows"),
    ):
        data = iter(Batches()) if "6000" in words else Batches()
        assert words in error_of(lambda data=data, settings=settings: fit(0, AFFINE, data, **settings, **QUICK))
    for odd, words in (
        ([DATA[:90], DATA[:0]], "a batch after row 90 of data has no rows"),
        (
            [DATA[:90], DATA[:90, :1]],
            r"a batch after row 90 of data has rows of shape ((1,), None), but earlier batches ((2,), None)",
        ),
    ):
        assert words in error_of(
            lambda odd=odd: fit(0, AFFINE, odd_batches(odd), validation=HELD_OUT, steps_per_epoch=2, **QUICK)
        )
    parts = {"validation": HELD_OUT, "steps_per_epoch": 2, "accumulate": 3}
    assert "does not split into accumulate=3" in error_of(lambda: fit(0, AFFINE, Batches(), **parts, **QUICK))
    assert "context has 3 rows" in error_of(lambda: fit(0, AFFINE, mapped, context=DATA[:3], **QUICK))
    tiny = mapped[:90]
    assert "90 rows on disk, of which 64 are held out, in blocks of 64; too few are left for batch_size=100" in error_of(
        lambda: fit(0, AFFINE, tiny, **QUICK)
    )


def test_a_stream_that_was_killed_goes_on(mapped, tmp_path):
    options = {**QUICK, "validation": HELD_OUT, "checkpoint_every": 1e-9}
    whole = fit(0, AFFINE, mapped, **options)

    def kill(epoch):
        if epoch.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(0, AFFINE, mapped, checkpoint=tmp_path / "fit", callbacks=[kill], **options)
    resumed = fit(0, AFFINE, mapped, checkpoint=tmp_path / "fit", **options)
    assert same(whole, resumed)


def test_a_stream_keeps_its_dtype():
    with enable_x64():
        wide = fit(0, AFFINE, Batches(DATA.astype(float)), validation=HELD_OUT.astype(float), steps_per_epoch=20, **QUICK)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(wide.params)} == {"float64"}


def test_the_order_of_a_stream_is_that_of_its_key():
    seeds = [StreamEpochs(in_batches_of(50), IN_ONE, Options(max_epochs=1), jax.random.key(seed)) for seed in (0, 0, 1)]
    orders = [each._order(np.random.default_rng([*each.seed, 0]), 100) for each in seeds]
    assert np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])


def test_the_rows_of_a_step_that_was_not_taken_are_kept():
    of = StreamEpochs(in_batches_of(5), IN_ONE, Options(max_epochs=1), jax.random.split(jax.random.key(0), 2))
    order = np.arange(40).reshape(2, 4, 1, 5)[:, ::-1]
    chunk = Chunk(40, Table.of(Rows(DATA[:40]), numbers=np.arange(100, 140)).take)
    of._note(Ready(chunk, None, order, order), np.array([[True] * 4, [True, False, True, False]]))
    found = of.suspects(0, 1, 1)
    assert list(of.refused) == [1] and found.numbers.tolist() == (100 + order[1, 1, 0]).tolist()
    np.testing.assert_array_equal(found.rows.x, DATA[order[1, 1, 0]])


@pytest.mark.parametrize("how", ["raises", "is NaN"])
def test_a_stream_that_fails_late_leaves_the_best_params(how):
    calls = []

    class Failing(Batches):
        def __iter__(self):
            calls.append(1)
            for i, rows in enumerate(super().__iter__()):
                if len(calls) == 2 and i == 3:
                    if how == "raises":
                        raise OSError("the disk is gone")
                    rows = rows * np.nan
                yield rows

    settings = {"validation": HELD_OUT, "steps_per_epoch": 25, "standardize": "columns", **QUICK}
    with pytest.raises(flows.FitError) as caught:
        fit(0, AFFINE, Failing(), **settings)
    error = caught.value
    words = "OSError: the disk is gone" if how == "raises" else "of data has nan in row 0, column 0"
    assert "fit: the data failed in epoch 2: " in str(error) and words in error.cause
    assert len(error.history["validation_loss"]) == 2 and error.history["best_epoch"] >= 0
    whole = fit(0, AFFINE, Batches(), **settings)
    np.testing.assert_allclose(error.history["validation_loss"], whole.history["validation_loss"][:2], rtol=1e-5)
    model = flows.Flow(flows.Standardize(), AFFINE)
    loss = -float(np.mean(model(0, 2).log_pdf(error.params, HELD_OUT)))
    np.testing.assert_allclose(loss, error.history.best, rtol=1e-4)


def test_tables_of_a_stream_are_put_in_order_by_name(mapped):
    settings = {"steps_per_epoch": 25, **QUICK, "max_epochs": 1}
    table = pandas.DataFrame(DATA, columns=["a", "b"])

    class Tables(Batches):
        def __iter__(self):
            for i, rows in enumerate(super().__iter__()):
                batch = pandas.DataFrame(rows, columns=["a", "b"])
                yield batch[["b", "a"]] if i % 2 else batch

    plain = fit(0, AFFINE, Batches(), validation=HELD_OUT, **settings)
    named = fit(0, AFFINE, Tables(), validation=table[["b", "a"]].iloc[-500:], **settings)
    assert named.columns == ("a", "b") and same(plain, named)
    np.testing.assert_array_equal(named.log_prob(table[["b", "a"]][:9]), plain.log_prob(DATA[:9]))
    odd = [table[:137], table[:137].rename(columns={"b": "c"})]
    assert "a batch after row 137 of data lacks 'b'; it also has 'c'" in error_of(
        lambda: fit(0, AFFINE, odd_batches(odd), validation=HELD_OUT, **{**settings, "steps_per_epoch": 2})
    )
    conditional = fit(0, flows.Normal(conditioner=flows.MLP(4)), mapped, context=table, **{**QUICK, "max_epochs": 1})
    assert conditional.context_columns == ("a", "b")
    given = [conditional.log_prob(DATA[:9], context=each) for each in (table[:9], table[["b", "a"]][:9])]
    np.testing.assert_array_equal(*given)


def test_folds_of_a_stream_are_refused(mapped):
    assert "folds is 3, but data is a stream" in error_of(lambda: fit(0, AFFINE, mapped, folds=3, **QUICK))


class Counted:
    """Batches of 50 rows, at random and without end, whose iterators can be asked where they are, as Grain's can."""

    def __init__(self, read=None):
        self.read = read

    def __iter__(self):
        return CountedIterator(self.read)


class CountedIterator:
    def __init__(self, read):
        self.number, self.read = 0, read

    def __iter__(self):
        return self

    def __next__(self):
        self.number += 1
        if self.read is not None:
            self.read.append(self.number)
        return DATA[np.random.default_rng(self.number).integers(len(DATA), size=50)]

    def get_state(self):
        return {"number": self.number}

    def set_state(self, state):
        self.number = state["number"]


class Bytes(Counted):
    def __iter__(self):
        iterator = CountedIterator(self.read)
        told, set_told = iterator.get_state, iterator.set_state
        iterator.get_state = lambda: str(told()["number"]).encode()
        iterator.set_state = lambda state: set_told({"number": int(state.decode())})
        return iterator


class FromGrain:
    def __len__(self):
        return len(DATA)

    def __getitem__(self, i):
        return DATA[i]


def with_grain():
    return grain.MapDataset.source(FromGrain()).seed(0).shuffle().repeat().batch(50)


@pytest.mark.parametrize("make", [Counted, Bytes, with_grain], ids=["state", "bytes", "grain"])
def test_an_iterator_goes_on_with_the_row_that_was_next(make, tmp_path):
    settings = {**QUICK, "validation": HELD_OUT, "batch_size": 32, "steps_per_epoch": 7, "standardize": "columns"}
    whole = fit(0, AFFINE, make(), **settings)
    fit(0, AFFINE, make(), checkpoint=tmp_path, callbacks=[lambda epoch: epoch.number == 1], **settings)
    gone_on = fit(0, AFFINE, make(), checkpoint=tmp_path, **settings)
    assert same(whole, gone_on) and len(gone_on.history["train_loss"]) == 4
    np.testing.assert_array_equal(whole.history["train_loss"], gone_on.history["train_loss"])


def test_an_iterator_is_kept_where_the_training_was_and_not_where_it_was_read_ahead(tmp_path):
    read = []
    settings = {"validation": HELD_OUT, "batch_size": 50, "steps_per_epoch": 4, **QUICK, "max_epochs": 2}
    stop = [lambda epoch: epoch.number == 0]
    fit(0, AFFINE, Counted(read), checkpoint=tmp_path, callbacks=stop, **settings)
    _, _, states = checkpoint_in(tmp_path)
    batches = 4 * QUICK["batch_size"] // 50
    assert states == [{"iterator": {"json": {"number": batches}}, "used": 0}] and max(read) >= batches


def test_an_iterator_that_refuses_its_state_is_told_of(tmp_path):
    class Refuses(Counted):
        def __iter__(self):
            iterator = CountedIterator(None)
            iterator.set_state = lambda state: [][0]
            return iterator

    settings = {"validation": HELD_OUT, "batch_size": 50, "steps_per_epoch": 4, **QUICK, "checkpoint": tmp_path}
    fit(0, AFFINE, Counted(), **{**settings, "callbacks": [lambda epoch: True]})
    message = error_of(lambda: fit(0, AFFINE, Refuses(), **settings))
    assert "data cannot continue from the state in the checkpoint (IndexError" in message


def checkpoint_in(folder):
    header, _ = container.read(str(folder / "fit.flows"), 2**20)
    return header["settings"], header["record"], header["stream"]


def test_rows_of_processes_are_joined_in_their_dtype():
    for array in (1e8 + DATA[:3].astype(float), np.arange(3, dtype=np.uint8), DATA[:2, None]):
        joined = _joined(array)
        np.testing.assert_array_equal(joined, array)
        assert joined.dtype == array.dtype
