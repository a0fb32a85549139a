"""Estimators for scikit-learn: densities, classes by Bayes' rule, outliers at a rate of false alarms that is kept, and
gaps filled.

estimator = flows.sklearn.NormalizingFlow().fit(X)        # a frame, or an array
estimator.score_samples(X), estimator.sample(10), estimator.p_value(X)

flows.sklearn.FlowClassifier().fit(X, y).predict_proba(X)
flows.sklearn.FlowOutlierDetector(alarm_rate=0.01).fit(X).predict(X)
flows.sklearn.FlowImputer().fit(X).transform(X)           # gaps filled, categories too
"""

from flows.core import lacking

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(lacking("flows.sklearn", error.name, "sklearn")) from error

from flows.sklearn.classifier import FlowClassifier
from flows.sklearn.density import NormalizingFlow
from flows.sklearn.imputer import FlowImputer
from flows.sklearn.outliers import FlowOutlierDetector

__all__ = ["FlowClassifier", "FlowImputer", "FlowOutlierDetector", "NormalizingFlow"]
