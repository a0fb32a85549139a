"""Strict dtypes and ranks for every test; warnings are errors (pyproject.toml)."""

import functools
import itertools
import os

import jax
import numpy as np
import pytest

import flows

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

FIRST = ("test_readme.py", "test_fit.py", "test_reproducible.py", "test_checkpoint.py")  # where one process is busy for long
ALONE = ("test_engines.py",)  # where tests share nothing
TOGETHER = {  # files that fit `common.AFFINE` to as many rows, so that programs are the same: one process
    "test_ensemble.py": "test_fit",
    "test_fit_bad_input.py": "test_fit",
    "test_fit_options.py": "test_fit",
    "test_fit_refusals.py": "test_fit",
    "test_fit_robust.py": "test_fit",
    "test_results.py": "test_fit",
    "test_select.py": "test_fit",
}
REPEATS = (  # cases that show what another case of the same test does, and take long: `make test-all` runs them
    "test_round_trips_and_log_dets[None-1e-08]",
    "test_the_guide_runs[tables]",  # `make docs` runs all pages
    "test_the_guide_runs[estimators]",
    "test_the_guide_runs[conditional]",
    "test_the_guide_runs[checks]",
    "test_nothing_fails_of_a_right_model[mixture-]",
    "test_nothing_fails_of_a_right_model[ensemble-]",
    "test_data_can_be_given_to_init[NSFImage]",
    "test_digits_are_learned_and_kept_in_a_file",
    "test_every_scale_sees_a_context_of_images[model0]",
    "test_a_class_has_a_prior_and_its_samples",
    "test_the_loop_keeps_nothing_for_the_gradient",
    "test_gradients_near_a_pole_are_finite[5]",
    "test_von_mises_and_von_mises_fisher_equal_scipy[0.001]",
    "test_the_columns_of_a_mixed_table_have_masses_and_densities_that_sum_to_1[]",
    "test_masses_and_densities_sum_to_1[start-]",
    "test_every_layer_is_called_as_before[NeuralSplineCoupling(network)-3]",
    "test_the_same_numbers_by_adaptive_steps[float64-1e-12]",
    "test_samples_follow_the_density[datasets.Spirals-2]",
    "test_every_registered_model_reads_back[NSFImage]",
    "test_the_density_of_a_row_does_not_depend_on_its_batch[MAF]",
    "test_round_trip_and_log_dets_are_exact[Coupling of pixels of kinds-(1, 3, 2)]",
    "test_round_trip_log_dets_and_gradients[RNODE]",
    "test_round_trip_log_dets_and_gradients[IResNet]",
    "test_a_residual_block_has_ends[a block]",
    "test_the_density_integrates_to_one[datasets.Spirals-2]",
    "test_von_mises_and_von_mises_fisher_equal_scipy[500.0]",
    "test_all_wells_are_found_with_their_masses[5-4]",
    "test_data_can_be_given_to_init[GlowImage]",
    "test_an_old_file_says_what_it_said[format_7/nsfimage]",
    "test_the_same_numbers[normflows-Residual-float32]",
    "test_scores_held_out_are_those_of_fresh_rows[False]",
    "test_a_stopped_fit_ends_with_the_same_bits[given optimizer]",
    "test_distribution_functions_are_on_the_turn[0.0]",
    "test_distribution_functions_are_on_the_turn[-3.141592653589793]",
    "test_distribution_functions_are_on_the_turn[4.0]",
    "test_models_are_compared_on_columns_of_codes[Joint]",
    "test_codes_alone_and_what_is_no_code[Joint]",
    "test_few_rows_are_averaged_over_folds[Joint]",
    "test_noise_of_a_block_comes_before_all_are_standardised[Joint]",
    "test_rows_are_verified_in_every_block[Joint]",
    "test_flows_of_blocks_start_at_the_regression_on_what_they_are_given[Joint]",
    "test_masses_and_densities_sum_to_one[numbers]",
    "test_masses_and_densities_sum_to_one[chain of chains]",
    "test_draws_with_their_density_and_a_file[chain of chains]",
    "test_the_contract_of_a_distribution[Joint of Categorical]",
    "test_the_contract_of_a_distribution[Flow of codes]",
    "test_masses_sum_to_one_and_draws_follow_them[Mixture of Categorical]",
    "test_masses_sum_to_one_and_draws_follow_them[Flow of codes]",
    "test_masses_sum_to_one_and_draws_follow_them[Joint of Categorical-context]",
    "test_quantiles_are_of_the_dtype_of_the_column_and_in_its_zone[DataFrame0]",
    "test_few_rows_and_many_categories_can_be_fitted",
    "test_masses_and_densities_sum_to_1[trained-given]",
    "test_segments_and_pieces_change_nothing[residual, ordered, normalised-False]",
    "test_presets_are_what_fit_takes[nsf-cifar10-5bit]",
    "test_presets_are_what_fit_takes[realnvp-cifar10]",
    "test_models_have_the_published_sizes[nsf-imagenet64]",
    "test_models_have_the_published_sizes[nsf-cifar10]",
    "test_every_scale_sees_a_context_of_images[model1]",
    "test_a_mixture_is_fitted_at_init[diagonal]",
    "test_loops_run_under_shard_map[numerical inverse]",
    "test_a_residual_block_has_ends[in a box]",
    "test_estimates_of_the_trace_are_unbiased_and_exact_without_rng[hutchinson-normal]",
    "test_round_trip_log_dets_and_gradients[NSF coupling, linear maps]",
    "test_every_layer_is_called_as_before[NeuralSplineCoupling-3]",
    "test_alarms_are_as_rare_as_promised_whatever_the_model[folds]",
    "test_folds_and_grids_of_frames_with_weights[pandas]",
    "test_frames_come_back_in_their_library_with_their_rows[DataFrame0]",
    "test_draws_beyond_float32_are_drawn_again[given]",
    "test_nothing_fails_of_a_right_model[behind bounds-]",
    "test_presets_are_what_fit_takes[glow-cifar10-additive]",
    "test_presets_are_what_fit_takes[glow-imagenet64]",
    "test_presets_are_what_fit_takes[nsf-cifar10-affine]",
    "test_presets_are_what_fit_takes[nsf-imagenet64-5bit]",
    "test_the_guide_runs[training]",
    "test_the_same_numbers[zuko-CNF-float32]",
    "test_nothing_fails_of_a_right_table[given-]",
    "test_masses_and_densities_sum_to_1[start-given]",
    "test_frames_are_scored_and_drawn_as_tables_are[weights-pandas]",
    "test_every_layer_is_called_as_before[NeuralSplineCoupling(network)-input_dim1]",
    "test_data_can_be_given_to_init[RealNVPImage]",
    "test_verify_finds_a_bijection[nnx]",
    "test_all_wells_are_found_with_their_masses[2-4]",
    "test_all_wells_are_found_with_their_masses[10-2]",
    "test_a_room_for_another_library_says_how_it_is_installed[blackjax]",
    "test_a_room_on_top_says_how_its_extra_is_installed[sklearn-sklearn]",
    "test_draws_and_density_lie_where_it_says[datasets.Spirals-2]",
    "test_round_trip_log_dets_and_gradients[ResidualFlow]",
    "test_round_trip_log_dets_and_gradients[SphereFlow]",
    "test_nothing_fails_of_a_right_model[circle-]",
    "test_an_old_file_says_what_it_said[format_7/residualflow]",
    "test_an_old_file_says_what_it_said[format_7/iresnet]",
)
REPEATED = (  # the same, of every test of a layer
    "[NSFImage-(4, 4, 1)]",  # splines in couplings and the scales of Glow are tested each by itself
    "[NSFImage-(4, 4, 2)-context]",
    "[RealNVPImage-(4, 2, 1)-context]",
    "[GlowImage-(4, 4, 1)]",
    "[ResidualBlock of many features-20]",
    "[Continuous-2-context]",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A file's tests run in one process, where they share programs, but for those in groups of their own.

    What takes long starts first, so that no process is left alone with it at the end.
    """
    for item in items:
        if item.name in REPEATS or item.name.endswith(REPEATED):
            item.add_marker(pytest.mark.slow)
        if item.path.name not in ALONE and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(TOGETHER.get(item.path.name, item.path.stem)))
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


def pytest_collection_finish(session):
    """Where groups are lost, which no one else tells, the tests of a file compile everything once in each process."""
    grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in grouped):
        raise pytest.UsageError("pytest-xdist keeps no groups of tests together under this pytest; pyproject.toml names others")


_ended = itertools.count()


def pytest_runtest_teardown():
    """Every program compiled is a few mappings of memory, of which Linux gives a process 65,530. Reading them all takes a
    while, and no ten tests make more than a few thousand."""
    if next(_ended) % 10:
        return
    try:
        with open("/proc/self/maps", "rb") as maps:
            mappings = maps.read().count(b"\n")
    except OSError:
        return
    if mappings > 40_000:
        jax.clear_caches()
        flows.clear_caches()


@pytest.fixture(autouse=True)
def the_same_rows(request):
    """A test draws the rows it would draw alone, whichever ran before it in its process."""
    if hasattr(request.module, "DRAW"):
        request.module.DRAW = np.random.default_rng(1)  # others than those of the module itself


@pytest.fixture
def optimized():
    """A `jax.jit` that makes the programs users run, with what XLA does to them: sums regrouped, products contracted."""
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
    short = "xla_cpu_use_fusion_emitters"  # the Makefile asks for programs that are made the short way
    options = {short: True} if short in os.environ.get("XLA_FLAGS", "") else None
    yield functools.partial(jax.jit, compiler_options=options)
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()


@pytest.fixture
def relaxed():
    """JAX's usual promotion, where stax networks or optax run: neither is written for the strict rules."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    """A tiny model's file."""
    params = {"log_scale": np.ones(1, np.float32), "shift": np.zeros(1, np.float32)}
    flows.save(path, flows.ActNorm(), params, 1, metadata={"unit": "cm"})
    return path
