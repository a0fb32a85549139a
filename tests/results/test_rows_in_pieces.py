"""Many rows are scored in pieces of two sizes: by two programs, in little memory, with the figures of all rows at once."""

import jax
import jax.monitoring
import numpy as np
import pytest
from common import AFFINE, error_of

import flows
from flows.core import enable_x64
from flows.results.pieces import by_pieces

ROWS = np.random.default_rng(0).normal(size=(60_000, 2))
CONTEXT = ROWS[:, :1] ** 2
CONDITIONAL = flows.Normal(conditioner=flows.conditioners.MLP(4))


def result_of(model, context_dim=0):
    """A result of a model as it begins, and the lengths of what its log_pdf is handed."""
    triple, lengths = model(0, 2, context_dim=context_dim), []

    def log_pdf(params, x, **keywords):
        lengths.append(len(x))
        return triple.log_pdf(params, x, **keywords)

    return flows.FitResult(triple.params, log_pdf, triple.sample, model, 2, context_dim), lengths


def mapped(array, path):
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def test_any_number_of_rows_takes_two_programs(tmp_path):
    (result, lengths), programs = result_of(AFFINE), []
    result.log_prob(ROWS[:300])
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: programs.append(event) if event == "/jax/core/compile/backend_compile_duration" else None
    )
    del lengths[:]
    scores = [
        np.asarray(result.log_prob(rows)) for rows in (ROWS[:9_001], ROWS[:20_000], ROWS, mapped(ROWS, tmp_path / "x.npy"))
    ]
    assert len(programs) <= 2 and set(lengths) == {16_512, 2_064}
    expected = result.log_pdf(result.params, ROWS)
    for found in scores:
        np.testing.assert_allclose(found, expected[: len(found)], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(scores[2], scores[3])
    np.testing.assert_array_equal(scores[1][:16_512], scores[2][:16_512], "nor does a score depend on what is beside its piece")


@pytest.mark.parametrize("own", [True, False])
def test_pieces_have_their_contexts(own, tmp_path):
    result, lengths = result_of(CONDITIONAL, 1)
    context = mapped(CONTEXT, tmp_path / "c.npy") if own else CONTEXT[7]
    scores = result.log_prob(ROWS[:20_000], context=context[:20_000] if own else context)
    assert max(lengths) <= 16_512 and isinstance(scores, jax.Array)
    expected = result.log_pdf(result.params, ROWS[:20_000], context=context[:20_000] if own else context)
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)


def test_members_score_pieces(tmp_path):
    mixture = flows.Mixture(AFFINE, num_components=2, trainable=False)
    ensemble = flows.results.EnsembleResult(*mixture(0, 2), mixture, 2, path=())
    rows = mapped(ROWS[:9_001], tmp_path / "x.npy")
    members = [ensemble.log_pdf_of_member(ensemble.params_of_member(i), ROWS[:9_001]) for i in range(2)]
    np.testing.assert_allclose(ensemble.log_pdfs(ensemble.params, rows), members, rtol=1e-5, atol=1e-5)


def test_some_rows_are_taken_together():
    result, lengths = result_of(AFFINE)
    rows = ROWS[:9_001].astype(np.float32)
    expected = result.log_prob(rows)
    del lengths[:]
    np.testing.assert_allclose(jax.jit(result.log_prob)(rows), expected, rtol=1e-5, atol=1e-5)
    assert set(lengths) == {9_001}
    assert "(9001, 3)" in error_of(lambda: result.log_prob(np.zeros((9_001, 3)))), "a fault is told of all of them"
    with pytest.raises(TypeError, match="context was given, but this model was fitted without one"):
        result.log_prob(rows, context=CONTEXT[:9_001])

    def centred(rng, input_dim, **_):
        return {}, lambda params, x: (x - x.mean(0, keepdims=True), np.zeros(len(x))), lambda params, y: (y, np.zeros(len(y)))

    result, lengths = result_of(flows.Flow(centred))
    np.testing.assert_allclose(result.log_prob(rows + 7), result.log_prob(rows), rtol=1e-3, atol=1e-3)
    assert set(lengths) == {9_001}, "rows may depend on each other"


def test_whole_numbers_are_read_as_all_of_them_are():
    result, lengths = result_of(AFFINE)
    codes = np.arange(18_002).reshape(9_001, 2) % 5
    np.testing.assert_allclose(result.log_prob(codes), result.log_prob(codes.astype(np.float32)), rtol=1e-6)
    assert set(lengths) == {2_064}
    codes[-1] = 2**24 + 1
    assert "the whole number 16777217" in error_of(lambda: result.log_prob(codes))
    with enable_x64():
        np.testing.assert_allclose(result.log_prob(codes), result.log_prob(codes.astype(np.float64)), rtol=1e-12)


def test_pieces_are_filled_up_or_end_with_the_rows():
    lengths = []

    def twice(x, other):
        lengths.append(len(x))
        assert other is None
        return 2 * x

    for n, sizes, cut in (
        (25, (10, 4), [10, 10, 4, 4]),
        (25, (10,), [10, 10, 10]),
        (20_001, (), [10_000, 10_000, 1]),
        (0, (4,), []),
    ):
        np.testing.assert_array_equal(by_pieces(twice, np.arange(float(n)), None, sizes=sizes), 2 * np.arange(n))
        assert lengths == cut
        del lengths[:]
