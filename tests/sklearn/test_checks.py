"""scikit-learn's own checks of estimators, on all four with a small model."""

import functools
import warnings

import jax
import pytest
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency, estimator_checks_generator

import flows
from flows.sklearn import FlowClassifier, FlowImputer, FlowOutlierDetector, NormalizingFlow

NORMAL = flows.Normal(trainable=True)
OF_LABELS = flows.Normal(conditioner=flows.conditioners.MLP(8))
ESTIMATORS = (
    NormalizingFlow(NORMAL, max_epochs=1),
    FlowClassifier(OF_LABELS, max_epochs=15),
    FlowOutlierDetector(0.1, NORMAL, max_epochs=1),
    FlowImputer(flows.AnySubset(hidden=(4,), num_bins=2), max_epochs=1),
)
SLOW = {  # checks that show what others of the same estimator show, on rows and columns that no other has
    "FlowClassifier": (
        "classifier_data_not_an_array", "classifiers_classes", "dtypes", "train", "subset_invariance", "series", "1feature",
        "positive_only", "supervised_y_2d", "idempotent", "weights", "n_features_in", "pipeline", "dtype_object", "nan_inf",
        "order_invariance", "overwrite", "is_fitted", "takes_y", "f_contiguous", "returns_self",
    ),
    "FlowOutlierDetector": (
        "data_not_an_array", "takes_y", "dtypes", "weights", "overwrite", "positive_only", "pipeline", "n_features_in",
        "nan_inf", "is_fitted", "dtype_object", "idempotent", "outliers_train", "returns_self", "1feature",
    ),
    "FlowImputer": (
        "dtypes", "positive_only", "series", "takes_y", "weights", "overwrite", "n_features_in", "dtype_object", "1feature",
        "is_fitted", "idempotent",
    ),
    "NormalizingFlow": ("dtypes", "positive_only", "series", "takes_y", "weights_shape", "overwrite", "not_overwritten"),
}  # fmt: skip
REASON = "a class has one row with a weight above 0 there, which is refused; rows that repeat are in other batches, too"


def cases():
    for estimator in ESTIMATORS:
        name = type(estimator).__name__
        for one, check in estimator_checks_generator(estimator):
            of = getattr(check, "func", check).__name__
            marks = [pytest.mark.slow] if any(word in of for word in SLOW[name]) else []
            if name == "FlowClassifier" and of == "check_sample_weight_equivalence_on_dense_data":
                marks.append(pytest.mark.xfail(reason=REASON, raises=flows.FlowsError))
            keywords = ",".join(map(str, check.keywords.values())) if isinstance(check, functools.partial) else ""
            yield pytest.param(one, check, id=f"{name}-{of}-{keywords}", marks=marks)


@pytest.mark.parametrize(("estimator", "check"), list(cases()))
def test_scikit_learn_says_that_it_is_an_estimator(estimator, check):
    with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        check(estimator)


def test_names_of_columns_are_told_as_scikit_learn_tells_them():
    with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        check_dataframe_column_names_consistency("NormalizingFlow", ESTIMATORS[0])
