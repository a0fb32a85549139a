"""What `result.plot` draws, by the data of its artists."""

import re
import sys

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
from common import AFFINE, QUICK, ROWS, error_of
from matplotlib.colors import to_hex, to_rgb

import flows
from flows.core.extras import installs
from flows.results.columns import Column
from flows.results.held_out import Kept
from flows.results.pictures.axes import STYLE, colours, edges, limits, spread, step_of
from flows.results.pictures.comparison import Compared, pairs
from flows.training import fit, fit_to_density

RNG = np.random.default_rng(0)
NAMES = ["height", "weight", "age"]
NORMAL = flows.Normal()
GIVEN = flows.Normal(conditioner=flows.MLP(4))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def result_of(event, kept=None, init_fun=NORMAL, **more):
    """A result that was fitted to nothing, with such rows held out."""
    triple = init_fun(0, event, **({"context_dim": more["context_dim"]} if "context_dim" in more else {}))
    return flows.FitResult(*triple, init_fun, event, kept=kept, **more)


def histograms(axes):
    """The heights and edges of rows and of draws, or of draws alone."""
    return [(patch.get_data().values, patch.get_data().edges) for patch in axes.patches]


def points(axes, colour):
    (scatter,) = axes.collections
    mine = [to_hex(each) == colour.lower() for each in scatter.get_facecolors()]
    return np.asarray(scatter.get_offsets())[np.broadcast_to(mine, len(scatter.get_offsets()))]


def words(figure):
    """The legend, and the remarks below."""
    legend = [text.get_text() for each in figure.legends for text in each.get_texts()]
    return legend, figure.get_supxlabel().replace("\n", " ")


def test_margins_and_pairs_of_draws_beside_the_rows_held_out():
    result = fit(0, AFFINE, pandas.DataFrame(ROWS, columns=NAMES[:2]), **QUICK)
    before = dict(plt.rcParams)
    figure = result.plot(n=500)
    first, pair, second = figure.axes
    assert words(figure)[0] == ["30 rows held out", "500 draws"]
    assert pair.get_xlabel() == second.get_xlabel().replace("weight", "height") == "height" and pair.get_ylabel() == "weight"
    rows = points(pair, colours().rows)
    np.testing.assert_allclose(np.sort(rows, 0), np.sort(result.kept.x, 0))
    draws = points(pair, colours().draws)
    of_model = result.draw(jax.random.fold_in(jax.random.key(0), 1), 500).to_numpy()
    np.testing.assert_allclose(np.sort(draws, 0), np.sort(of_model, 0))
    for axes, j in ((first, 0), (second, 1)):
        (of_rows, bins), (of_draws, same) = histograms(axes)
        np.testing.assert_array_equal(bins, same)
        for heights, values in ((of_rows, rows[:, j]), (of_draws, draws[:, j])):
            inside = np.mean((values >= bins[0]) & (values <= bins[-1]))
            assert heights @ np.diff(bins) == pytest.approx(inside) and inside > 0.9
    again = result.plot(n=500)
    np.testing.assert_array_equal(points(again.axes[1], colours().draws), draws)
    assert not np.array_equal(points(result.plot(n=500, rng=1).axes[1], colours().draws), draws)
    assert figure.get_facecolor()[-1] == first.get_facecolor()[-1] == 0.0, "pages show through"
    assert dict(plt.rcParams) == before, "the user's style stays"


def test_columns_are_picked_by_name_and_place(path):
    result = result_of(8, Kept(RNG.normal(size=(50, 8))))
    figure = result.plot(n=60)
    assert len(figure.axes) == 21 and "the first 6 of 8 columns" in words(figure)[1]
    figure = result.plot(columns=[7, -3], n=60)
    assert [axes.get_xlabel() for axes in figure.axes[1:]] == ["column 7", "column 5"] and "first" not in words(figure)[1]
    np.testing.assert_allclose(np.sort(points(figure.axes[1], colours().rows), 0), np.sort(result.kept.x[:, [7, 5]], 0))
    assert len(result.plot(columns="column 2", n=60).axes) == 1
    for columns, said in (
        ("age", "columns has 'age'; expected some of 'column 0', 'column 1'"),
        ([8], "places from 0 to 7"),
        ([1, 1], "each once"),
        ([], "expected 1 to 12 columns"),
        ([True], "columns has True"),
    ):
        assert said in error_of(lambda columns=columns: result.plot(columns=columns))
    assert "plot: n is 0" in error_of(lambda: result.plot(n=0))


def test_rows_are_those_given_or_none(path):
    result = result_of(2, Kept(ROWS[:20]))
    assert words(result.plot(ROWS, n=100))[0] == ["100 of 300 rows", "100 draws"]
    assert set(map(tuple, points(result.plot(ROWS, n=100).axes[1], colours().rows))) < set(map(tuple, ROWS))
    result.save(path)
    figure = flows.load(path).plot(n=100)
    assert words(figure)[0] == ["100 draws"] and "without rows: those held out are in no file" in words(figure)[1]
    assert len(points(figure.axes[1], colours().draws)) == 100 and len(histograms(figure.axes[0])) == 1
    assert "rows has shape (300, 1); expected (rows, 2), with one row at least" in error_of(lambda: result.plot(ROWS[:, :1]))
    bad = np.where(np.arange(300)[:, None] == [7, 9], np.nan, ROWS)
    assert "2 of 300 rows have NaN or inf, the first is row 7" in error_of(lambda: result.plot(bad))
    with pytest.raises(TypeError, match="fitted without one"):
        result.plot(ROWS, context=[1.0])


def test_folds_are_drawn_together_and_weights_count():
    folds = RNG.normal(size=(3, 10, 2))
    figure = result_of(2, Kept(folds)).plot(n=50)
    assert set(map(tuple, points(figure.axes[1], colours().rows))) == set(map(tuple, folds.reshape(-1, 2)))
    weights = np.array([[3.0] + [0.0] * 9] * 3)
    drawn = points(result_of(2, Kept(folds, None, weights)).plot(n=50).axes[1], colours().rows)
    assert len(drawn) == 30 and set(map(tuple, drawn)) == set(map(tuple, folds[:, 0])), "those of no weight are not seen"


def test_draws_that_are_no_numbers_are_counted():
    params, log_pdf, sample = NORMAL(0, 2)

    def fails_first(key, params, n):
        return jnp.where(jnp.arange(n)[:, None] < 4, jnp.nan, sample(key, params, n))

    fails = flows.FitResult(params, log_pdf, fails_first, NORMAL, 2)
    figure = fails.plot(n=30)
    assert "4 draws are not finite" in words(figure)[1] and len(points(figure.axes[1], colours().draws)) == 26
    assert "none of 3 draws is finite" in error_of(lambda: fails.plot(n=3))


def test_outliers_leave_the_axes_and_are_counted():
    rows = np.concatenate([RNG.normal(size=(1_000, 1)), [[1e6]]])
    figure = result_of(1, Kept(rows)).plot(n=1_000)
    low, high = figure.axes[0].get_xlim()
    assert -5 < low < high < 5 and "of 1,000 rows" in words(figure)[1] and "rows held out" in words(figure)[0][0]


# Bins, points and axes


def test_rounded_values_fill_their_bins_and_their_cells():
    whole, tenths = RNG.poisson(40.0, 2_000).astype(float), np.round(RNG.normal(size=1_000), 1)
    assert step_of(whole) == 1.0 and step_of(tenths) == pytest.approx(0.1) and step_of(RNG.normal(size=99)) == 0.0
    assert step_of(np.where(whole < 40, 0.0, RNG.normal(size=2_000))) == 0.0, "a repeated value among others is no step"
    for values, step in ((whole, 1.0), (tenths, 0.1)):
        bins = edges(Column("x"), limits(Column("x"), values, values), values, values)
        steps = np.diff(bins) / step
        np.testing.assert_allclose(steps, np.round(steps[0]), atol=1e-6)  # as many in each, so that no bin sticks out
        np.testing.assert_allclose((bins / step) % 1, 0.5, atol=1e-6)
        placed = spread(Column("x"), values, RNG)
        np.testing.assert_allclose(np.round(placed / step) * step, values, atol=1e-9)
        assert len(np.unique(placed)) == len(values)


def test_codes_have_bars_whose_heights_are_shares():
    model = flows.Categorical(3)
    rows = np.array([[0.0]] * 5 + [[1.0]] * 15)
    figure = result_of(1, Kept(rows), model).plot(n=600)
    heights = np.array([patch.get_height() for patch in figure.axes[0].patches]).reshape(2, 3)
    np.testing.assert_allclose(heights[0], [0.25, 0.75, 0.0])
    np.testing.assert_allclose(heights.sum(1), 1.0)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1", "2"]
    (axes,) = result_of(1, Kept(rows), flows.Categorical(40)).plot(n=600).axes
    (of_rows, bins), _ = histograms(axes)
    assert bins[0] == -0.5 and bins[-1] >= 39.5 and of_rows @ np.diff(bins) == pytest.approx(1.0), "bins of many codes"


def test_of_many_categories_the_commonest_are_drawn():
    codes = np.repeat(np.arange(30.0), np.arange(30) + 1)
    column = Column("town", low=-0.5, high=29.5, called=tuple(f"town {code}" for code in range(30)))
    both = Compared(codes[:, None], np.array([[29.0], [3.0], [3.5], [30.0]]), "rows", "draws", ["a note"])
    axes = (figure := pairs([column], both)).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == [*(f"town {code}" for code in range(19, 30)), "others"]
    heights = np.array([patch.get_height() for patch in axes.patches]).reshape(2, 12)
    np.testing.assert_allclose(heights[0] * len(codes), [*range(20, 31), sum(range(20))])
    np.testing.assert_allclose(heights[1], [0.0] * 10 + [0.25, 0.25])
    assert words(figure)[1] == "a note; town: the 11 commonest of 30 categories; beyond the axes: 2 of 4 draws"


def test_ticks_of_a_narrow_axis_are_told_from_an_offset():
    for rows, offset in ((1e8 + ROWS[:, :1], "+1e8"), (ROWS[:, :1], "")):
        figure = result_of(1).plot(rows, n=50)
        figure.draw_without_rendering()
        assert figure.axes[0].xaxis.get_offset_text().get_text() == offset


def test_labels_of_ticks_do_not_touch():
    """Neither in a panel, nor those at the ends of two panels."""
    rows = np.linspace([-1234.45, 1e5, 1e5], [-1233.55, 5e5, 5e5], 400)
    figure = pairs([Column(name) for name in NAMES], Compared(rows, rows[::2], "rows", "draws", []))
    figure.draw_without_rendering()
    labels = list[tuple[float, float]]()
    for axes in figure.axes[3:]:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_text()]
        assert len(ticks) > 1, "a scale has two ticks"
        labels += [tuple(tick.label1.get_window_extent().intervalx) for tick in ticks]
    assert all(one[1] + 2 < other[0] for one, other in zip(sorted(labels), sorted(labels)[1:], strict=False))


def test_angles_are_on_one_turn():
    rows = np.linspace(-9.0, 9.0, 40)[:, None]
    figure = result_of(1, Kept(rows), flows.VonMises(), turn=np.zeros(1)).plot(n=100)
    (of_rows, bins), _ = histograms(figure.axes[0])
    np.testing.assert_allclose([bins[0], bins[-1], of_rows @ np.diff(bins)], [0.0, 2 * np.pi, 1.0], rtol=1e-6)


def test_a_column_of_one_value_at_nearly_all_rows_has_a_logarithmic_scale():
    rows = np.where(RNG.random((500, 1)) < 0.9, 0.0, RNG.exponential(size=(500, 1)))
    assert result_of(1, Kept(rows)).plot(n=100).axes[0].get_yscale() == "log"
    assert result_of(1, Kept(RNG.normal(size=(500, 1)))).plot(n=100).axes[0].get_yscale() == "linear"


# With a context


@pytest.mark.parametrize("by", ["draws", "map"])
def test_one_column_given_one_has_its_median_and_90_percent(by):
    model = GIVEN if by == "draws" else flows.Flow(flows.Autoregressive(flows.conditioners.MaskedMLP(4)))
    context = RNG.normal(size=(200, 1))
    result = result_of(1, Kept(2 * context, context), model, context_dim=1)
    assert result.cdf_by == by
    figure = result.plot(n=1_000)
    (axes,) = figure.axes
    scatter, band = axes.collections
    (median,) = axes.get_lines()
    assert len(scatter.get_offsets()) == 200 and words(figure)[0] == ["200 rows held out", "90% of the model", "its median"]
    at = median.get_xdata()
    k = len(at) // 3
    draws = np.sort(np.asarray(result.draw(5, 4_000, context=[at[k]]))[:, 0])
    outline = band.get_paths()[0].vertices
    low, high = (each(outline[np.isclose(outline[:, 0], at[k]), 1]) for each in (min, max))
    assert np.mean((draws > low) & (draws < high)) == pytest.approx(0.9, abs=0.05)
    assert np.mean(draws < median.get_ydata()[k]) == pytest.approx(0.5, abs=0.07)
    inside = np.interp(context[:, 0], at, [min(outline[np.isclose(outline[:, 0], x), 1]) for x in at]) <= 2 * context[:, 0]
    inside &= np.interp(context[:, 0], at, [max(outline[np.isclose(outline[:, 0], x), 1]) for x in at]) >= 2 * context[:, 0]
    assert f"{inside.mean():.0%} of the rows lie in the band" in words(figure)[1]
    (axes,) = result.plot([[0.5], [1.0]], context=[2.0], n=100).axes
    assert axes.patches[0].get_height() > 0 and axes.patches[0].get_width() > 0.5, "a single place has a band, too"


def test_several_columns_are_drawn_for_the_contexts_of_the_rows():
    context = np.repeat([[-4.0], [4.0]], 100, 0)
    context = context + RNG.normal(size=(200, 1))

    def sample(key, params, n, context):  # what is given, and minus that
        return jnp.broadcast_to(context, (n, 1)) * jnp.array([[1.0, -1.0]])

    result = flows.FitResult((), None, sample, GIVEN, 2, 1, kept=Kept(ROWS[:200], context))
    draws = points(result.plot(n=400).axes[1], colours().draws)
    given = np.float32(context) * [1, -1]
    np.testing.assert_allclose(np.unique(draws, axis=0), np.unique(given, axis=0))
    assert len(draws) == 400, "each as often"
    figure = result.plot(n=50, context=[4.0])
    assert words(figure)[0] == ["50 draws"] and "as the context was given alone" in words(figure)[1]
    alone = result._replace(kept=None)
    assert "give rows and context, or a context alone, (1,)" in error_of(alone.plot)
    assert "context is missing; expected (200, 1)" in error_of(lambda: result.plot(ROWS[:200]))
    for given in (4.0, np.ones((5, 2)), np.ones((0, 1))):
        said = f"context has shape {np.shape(given)}; expected (1,), one for all draws, or (rows, 1)"
        assert said in error_of(lambda given=given: result.plot(context=given))
    bad = np.where(np.arange(200)[:, None] == 7, np.inf, context)
    for rows in (ROWS[:200], None):
        said = "1 of 200 contexts have NaN or inf, the first is row 7"
        assert said in error_of(lambda rows=rows: result.plot(rows, context=bad))
    assert "1 of 1 contexts have NaN" in error_of(lambda: result.plot(context=[np.nan]))


# Images, and fits to a density


def test_images_are_sheets_beside_each_other():
    images = RNG.integers(0, 256, size=(50, 4, 6, 3)).astype(float)
    result = result_of((4, 6, 3), Kept(images))
    figure = result.plot()
    assert [axes.get_title() for axes in figure.axes] == ["36 of 50 rows held out", "36 draws"]
    of_rows, of_draws = (axes.images[0].get_array() for axes in figure.axes)
    assert of_rows.shape == of_draws.shape == (6 * 4 + 5, 6 * 6 + 5, 4)
    first = of_rows[:4, :6, :3] * (images.max() - images.min()) + images.min()
    assert np.isclose(first, images).all((1, 2, 3)).any(), "the first cell is one of the rows"
    assert of_rows[4, :, 3].max() == 0.0, "between them nothing is drawn"
    grey = result_of((4, 4), Kept(images[:7, :, :4, 0])).plot(n=5)
    assert [axes.get_title() for axes in grey.axes] == ["5 of 7 rows held out", "5 draws"]
    assert "an image; leave it out" in error_of(lambda: result.plot(columns=[0]))
    assert result_of((60, 2), Kept(np.ones((3, 60, 2)))).plot(n=5).get_figheight() < 12
    assert "expected a vector, or an image of 1 or 3 channels" in error_of(result_of((2, 2, 2)).plot)


def nearly_normal(p):
    return -0.5 * (p["mu"] ** 2 + (p["w"] ** 2).sum(-1)) - 0.001 * p["mu"] ** 4


def test_a_fit_to_a_density_has_its_weights(path):
    result = fit_to_density(0, flows.Normal(), nearly_normal, {"mu": (), "w": (2,)}, num_weights=500, verbose=0)
    figure = result.plot(n=100)
    assert len(figure.axes) == 7 and figure.axes[3].get_ylabel() == "w[1]" and figure.axes[-2].get_xlabel() == "w[1]"
    panel = figure.axes[-1]
    assert f"Pareto k {result.diagnostics.pareto_k:.2f}" in panel.get_title() and panel.get_xlabel() == "log w - log Z, nats"
    ((heights, bins),) = histograms(panel)
    log_w = result.log_weights - result.diagnostics.log_normalizer.value
    inside = np.mean((log_w >= bins[0]) & (log_w <= bins[-1]))
    assert len(log_w) == 500 and heights @ np.diff(bins) == pytest.approx(inside) and inside > 0.98 and bins[0] < 0 < bins[-1]
    assert len(result.plot({"mu": [0.0], "w": [[0.0, 1.0]]}, columns="mu", n=100).axes) == 2
    result.save(path)
    for without in (flows.load(path), result._replace(params=result.params)):
        figure = without.plot(n=100)
        assert len(figure.axes) == 6 and "importance weights are in no file, nor of other params" in words(figure)[1]


def test_the_style_is_seen_on_light_and_dark_pages():
    style = plt.matplotlib.rc_params_from_file(STYLE, use_default_template=False)
    text = [style[name] for name in ("text.color", "axes.labelcolor", "xtick.color", "legend.labelcolor")]
    for names, least in ((text, 4.2), (colours(), 3.0)):
        for page in ("white", "#131416"):
            for name in names:
                low, high = sorted(luminance(each) for each in (name, page))
                assert (high + 0.05) / (low + 0.05) >= least, f"{name} on {page}"


def luminance(colour):
    """As of the Web Content Accessibility Guidelines."""
    parts = np.array(to_rgb(colour))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_without_matplotlib_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for plot in (result_of(2).plot, flows.results.History().plot):
        with pytest.raises(ImportError, match=re.escape(f"plot needs the package matplotlib: {installs('plot')}")):
            plot()
