"""The estimators for scikit-learn: classes of digits, and outliers of tumours and of digits, beside scikit-learn's own.

    python benchmarks/estimators.py                                            # one fold, two splits, one core: half an hour
    python benchmarks/estimators.py --parts classes --methods "logistic regression,SVM,Normal" --folds 5
    python benchmarks/estimators.py --parts outliers --sets "breast cancer" --splits 20 --methods "MAF,isolation forest"
    python benchmarks/estimators.py --table

"classes": `FlowClassifier` on the digits of scikit-learn, 64 whole numbers of 0 to 16, by stratified folds: accuracy and log
loss of the rows left out. "tempered" is the same fit with log p(x | label) times the factor that is likeliest on rows that the
fit itself held out. "outliers": `FlowOutlierDetector`, fitted to 80% of the benign tumours or of one digit: the share of alarms
among the other rows of that class, and the area under the ROC curve of these and all rows of other classes. Written to
benchmarks/results/estimators.json.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
import records
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import flows
from flows import tables
from flows.results.ensemble import EnsembleResult
from flows.sklearn import FlowClassifier, FlowOutlierDetector
from flows.sklearn.base import array_frame
from flows.sklearn.outliers import offset

RESULTS = Path(__file__).resolve().parent / "results" / "estimators.json"
RATES = (0.05, 0.01)
FITTED = 0.8  # of the rows of a class, for outliers
QUICK = ("Gaussian", "isolation forest", "local outlier factor")
POINTS = 16  # of each cell
LEAST = 1e-3  # factor of log densities


class Noisy(FlowClassifier):
    """Fitted to copies of the rows with noise, as wide as a few steps: a smoother density."""

    copies, width = 4, 2.0

    def fit(self, X, y, sample_weight=None):
        rng = np.random.default_rng(0)
        X, y = np.repeat(X, self.copies, 0), np.repeat(y, self.copies)
        return super().fit(X + self.width * rng.normal(size=X.shape), y)


def classifiers(minutes, seed):
    """By name; each is made anew for each fold."""
    mlp = flows.conditioners.MLP(32)
    models = {
        "auto": "auto",
        "Normal": flows.Normal(conditioner=mlp),
        "full Normal": flows.Normal(covariance="full", conditioner=mlp),
        "NSF": flows.Flow(flows.NSF()),
        "MAF": flows.Flow(flows.MAF()),
        "RealNVP": flows.Flow(flows.RealNVP()),
    }

    def ours(model, make=FlowClassifier):
        return make(model, minutes=minutes, random_state=seed)

    made = {
        "logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        "SVM": lambda: SVC(probability=True, random_state=seed),
    }
    made |= {name: lambda model=model: ours(model) for name, model in models.items()}
    made["PCA + NSF"] = lambda: make_pipeline(PCA(20, random_state=seed), ours(models["NSF"]))
    made["PCA + full Normal"] = lambda: make_pipeline(PCA(20, random_state=seed), ours(models["full Normal"]))
    # A list of one, as a list has folds, which hold out all rows, where a single Gaussian has a tenth.
    made["PCA + full Normal of folds"] = lambda: make_pipeline(PCA(20, random_state=seed), ours([models["full Normal"]]))
    made["PCA + full Normal + calibration"] = lambda: CalibratedClassifierCV(made["PCA + full Normal"](), method="temperature")
    made["noise + full Normal"] = lambda: ours(models["full Normal"], Noisy)
    made["Normal + calibration"] = lambda: CalibratedClassifierCV(ours(models["Normal"]), method="temperature", cv=3)
    return made


def detectors(minutes, seed, schema):
    """By name; the rate of alarms is set afterwards, as it does not change the fit."""
    models = {"auto": "auto", "NSF": flows.Flow(flows.NSF()), "MAF": flows.Flow(flows.MAF())}
    models["Gaussian"] = [flows.Normal()]  # a list has folds, which hold out all rows, where a single one has a tenth
    made = {
        name: lambda model=model: FlowOutlierDetector(model=model, schema=schema, minutes=minutes, random_state=seed)
        for name, model in models.items()
    }
    made["isolation forest"] = lambda: IsolationForest(random_state=seed)
    made["local outlier factor"] = lambda: LocalOutlierFactor(novelty=True)
    return made


def joint_of(classifier, X):
    """log p(row | class), (rows, classes), less a number of each row, of a fitted classifier with any priors above 0."""
    return classifier.predict_log_proba(X) - np.log(classifier.priors_)


def of_cells(classifier, X):
    """log P(class | row), (rows, classes), by the mean density over points of each cell that was rounded to the row."""
    frame, classes = array_frame(X), range(len(classifier.classes_))
    joint = [classifier.table_.log_prob(classifier._labelled(frame, np.full(len(X), k)), draws=POINTS) for k in classes]
    return log_softmax(np.stack(joint, 1) + np.log(classifier.priors_), 1)


def held_out(classifier):
    """log p(row | class) of rows that the fit held out, each by a model that has not seen it, and their labels."""
    result, classes = classifier.table_.result, len(classifier.classes_)
    kept, contexts = result.kept, np.eye(classes, dtype=np.float32)

    def joint(score, x):
        return np.stack([np.asarray(score(x, np.tile(one, (len(x), 1))), float) for one in contexts], 1)

    if not (isinstance(result, EnsembleResult) and result.folds):
        found = joint(lambda x, context: result.log_pdf(result.params, x, context=context), kept.x)
        return found, kept.context.argmax(1)
    of_members = [
        joint(lambda x, context, i=i: result.log_pdf_of_member(result.params_of_member(i), x, context=context), kept.x[i])
        for i in range(result.members)
    ]
    return np.concatenate(of_members), np.concatenate(kept.context).argmax(1)


def factor_of(joint, places, priors):
    """What log densities are multiplied by, 1 at most, so that the posteriors of the labels are likeliest: where all rows are
    classified rightly, no factor would be large enough."""

    def loss(log_factor):
        return log_loss(log_softmax(np.exp(log_factor) * joint + np.log(priors), 1), places)

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(LEAST), 0.0), method="bounded").x))


def log_loss(log_posteriors, places):
    return float(-log_posteriors[np.arange(len(places)), places].mean())


def told_of(log_posteriors, places):
    return {"accuracy": float((log_posteriors.argmax(1) == places).mean()), "log loss": log_loss(log_posteriors, places)}


def classes(methods, folds, minutes, seed, found, out):
    X, y = load_digits(return_X_y=True)
    splits = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y))
    made = classifiers(minutes, seed)
    for method in [method for method in methods if method in made]:
        for i, (train, test) in enumerate(splits[:folds]):
            of_fold = found.setdefault("classes", {}).setdefault(method, {})
            if str(i) in of_fold:
                continue
            began = time.process_time(), time.monotonic()
            fitted = made[method]().fit(X[train], y[train])
            with np.errstate(divide="ignore"):
                told = told_of(np.log(np.maximum(fitted.predict_proba(X[test]), 1e-300)), y[test])
            told |= {"seconds": time.process_time() - began[0], "clock": time.monotonic() - began[1]}
            last = fitted[-1] if hasattr(fitted, "steps") else fitted
            if isinstance(last, FlowClassifier) and not isinstance(last, Noisy):  # which trains on copies of what it holds out
                factor = factor_of(*held_out(last), last.priors_)
                rows = fitted[:-1].transform(X[test]) if hasattr(fitted, "steps") else X[test]
                tempered = told_of(log_softmax(factor * joint_of(last, rows) + np.log(last.priors_), 1), y[test])
                told |= {"factor": factor} | {f"tempered {name}": value for name, value in tempered.items()}
                if method == "NSF" and i == 0:
                    told |= {f"{name} of cells": value for name, value in told_of(of_cells(last, X[test]), y[test]).items()}
                if last.table_.selection is not None:
                    print(last.table_.selection, flush=True)
            of_fold[str(i)] = told
            print(f"{method}, fold {i}: {json.dumps(told)}", flush=True)
            records.write(out, found)


def sets_of_outliers():
    """Usual rows, and others, by name."""
    X, y = load_breast_cancer(return_X_y=True)
    sets = {"breast cancer": (X[y == 1], X[y == 0])}
    X, y = load_digits(return_X_y=True)
    return sets | {f"digit {k}": (X[y == k], X[y != k]) for k in range(10)}


def outliers(methods, names, splits, minutes, found, out):
    for name in names:
        usual, others = sets_of_outliers()[name]
        # One schema for all splits of the tumours, so that they compile once: the steps that show differ from split to split.
        schema = tables.Schema({i: tables.Real() for i in range(usual.shape[1])}) if name == "breast cancer" else None
        for split in range(splits):
            order = np.random.default_rng(split).permutation(len(usual))
            known = int(FITTED * len(usual))
            fit, fresh = usual[order[:known]], usual[order[known:]]
            made = detectors(minutes, split, schema)
            for method in [method for method in methods if method in made]:
                of_method = found.setdefault("outliers", {}).setdefault(name, {}).setdefault(method, {})
                if str(split) in of_method:
                    continue
                told = detected(made[method], fit, fresh, others)
                of_method[str(split)] = told
                print(f"{name}, {method}, split {split}: {json.dumps(told)}", flush=True)
                records.write(out, found)


def detected(make, fit, fresh, others):
    """Alarms among fresh rows, a list for several rates, their number, the area under the curve, and seconds."""
    began = time.process_time()
    detector = make().fit(fit)
    of_fresh, of_others = detector.score_samples(fresh), detector.score_samples(others)
    seconds = time.process_time() - began
    told = {"area": area(of_fresh, of_others)}
    if isinstance(detector, FlowOutlierDetector):
        result = detector.table_.result
        scores = np.ravel(result.scores)
        held_out = result.kept.x.reshape(len(scores), -1)
        counted = np.where(detector._alone(held_out, array_frame(fit), None), -np.inf, scores)
        offsets = [offset(counted, result.score_weights, rate) for rate in RATES]
        told["unknown"] = int((of_fresh == -np.inf).sum())
        constant = np.ptp(fit, 0) == 0
        if constant.any():  # which are -inf where they vary, all alike
            of_rows = [detector.score_samples(np.where(constant, fit[0], rows)) for rows in (fresh, others)]
            told["area without constants"] = area(*of_rows)
        # As if the unknown values of new rows had no counterpart among the rows held out.
        told["alarms uncounted"] = alarms(of_fresh, [offset(scores, result.score_weights, rate) for rate in RATES])
    else:
        offsets = [detector.offset_]
    told["alarms"] = alarms(of_fresh, offsets)
    told["found"] = alarms(of_others, offsets[:1])[0] / len(of_others)
    return {**told, "fresh": len(fresh), "fitted": len(fit), "seconds": seconds}


def area(of_fresh, of_others):
    """Under the ROC curve."""
    scores = np.nan_to_num(np.concatenate([of_fresh, of_others]), neginf=-1e300)
    return float(roc_auc_score(np.repeat([1, 0], [len(of_fresh), len(of_others)]), scores))


def alarms(scores, offsets):
    return [int(((scores < each) | (scores == -np.inf)).sum()) for each in offsets]


def table(found):
    """What was measured: means over folds or splits, and standard errors of these."""
    return "\n\n".join([*tables_of_classes(found.get("classes", {})), *tables_of_outliers(found.get("outliers", {}))])


def with_error(values, digits, scale=1.0):
    values = scale * np.asarray(values)
    error = f" +- {values.std(ddof=1) / np.sqrt(len(values)):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}"


def tables_of_classes(found):
    """Of the first fold, which all methods have, and of as many as each has."""
    heads = ("accuracy, %", "log loss", "tempered log loss", "factor", "seconds")
    first = {method: {"0": of_folds["0"]} for method, of_folds in found.items()}
    several = {method: of_folds for method, of_folds in found.items() if len(of_folds) > 1}
    for title, group in (("digits, fold 0", first), ("digits, folds", several)):
        lines = ["| " + " | ".join([title, *heads]) + " |", "|---" * (len(heads) + 1) + "|"]
        for method, of_folds in group.items():
            told = list(of_folds.values())
            cells = [method if group is first else f"{method}, {len(told)}"]
            cells += [with_error([each["accuracy"] for each in told], 1, 100.0)]
            cells += [with_error([each["log loss"] for each in told], 3)]
            ours = "factor" in told[0]
            cells += [with_error([each["tempered log loss"] for each in told], 3)] if ours else [""]
            cells += [f"{np.mean([each['factor'] for each in told]):.2f}" if ours else ""]
            cells += [f"{np.mean([each['seconds'] for each in told]):.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
        yield "\n".join(lines)


def tables_of_outliers(found):
    groups = {"breast cancer": ["breast cancer"], "each digit": [name for name in found if name.startswith("digit")]}
    for group, names in groups.items():
        constants = ("area without constants",) if group == "each digit" else ()
        heads = (group, "fits", "area", *constants, *(f"alarms at {rate:.0%}" for rate in RATES), "alarms by default")
        heads += ("others found", "seconds")
        lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for method in dict.fromkeys(method for name in names for method in found.get(name, {})):
            told = [each for name in names for each in found.get(name, {}).get(method, {}).values()]
            cells = [method, f"{len(told)}", with_error([each["area"] for each in told], 4)]
            if constants:
                # Without a constant column the areas are one.
                known = [each.get("area without constants", each["area"]) for each in told if "unknown" in each]
                cells.append(with_error(known, 4) if known else "")
            fresh = sum(each["fresh"] for each in told)
            shares = [sum(of_rate) / fresh for of_rate in zip(*(each["alarms"] for each in told), strict=True)]
            texts = [f"{100 * share:.1f}% +- {100 * np.sqrt(share * (1 - share) / fresh):.1f}" for share in shares]
            cells += [*texts, ""] if len(texts) == len(RATES) else ["", "", *texts]
            cells += [f"{np.mean([each['found'] for each in told]):.1%}", f"{np.mean([each['seconds'] for each in told]):.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
        yield "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", default="classes,outliers")
    parser.add_argument("--methods", help="by default all of classes, and of outliers " + ", ".join(QUICK))
    parser.add_argument("--sets", default=",".join(sets_of_outliers()))
    parser.add_argument("--folds", type=int, default=1, help="of five, for classes")
    parser.add_argument("--splits", type=int, default=2, help="for outliers")
    parser.add_argument("--minutes", type=float, default=8.0, help="for each fit")
    parser.add_argument("--seed", type=int, default=0, help="of the folds, and of fits to them")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what was measured")
    options = parser.parse_args()
    found, methods = records.read(options.out), options.methods
    if options.table:
        print(table(found))
        return
    os.sched_setaffinity(0, {options.core})
    warnings.simplefilter("ignore")
    if "classes" in options.parts:
        of_classes = methods.split(",") if methods else list(classifiers(None, 0))
        classes(of_classes, options.folds, options.minutes, options.seed, found, options.out)
    if "outliers" in options.parts:
        of_outliers, names = methods.split(",") if methods else QUICK, options.sets.split(",")
        outliers(of_outliers, names, options.splits, options.minutes, found, options.out)
    print(table(found))


if __name__ == "__main__":
    main()
