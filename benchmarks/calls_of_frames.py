"""Thirty calls of tables, twenty of checks, and what fits, tables and checks refuse or warn of: see digests.py."""

import re
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from calls import CALLS, banana, by_minute, fitted, rows_of

QUICK: dict[str, Any] = {"max_epochs": 2, "verbose": 0}


def frame(rows: int = 400, library: str = "pandas") -> Any:
    """Columns of each kind."""
    import pandas
    import polars

    rng = np.random.default_rng(3)
    town = rng.choice(["Bonn", "Oslo", "Rome"], rows)
    days = np.datetime64("2024-01-01") + rng.integers(0, 500, rows)
    columns = {
        "town": town,
        "guests": rng.poisson(9, rows),
        "x": rng.normal(np.where(town == "Oslo", 2.0, 0.0)),
        "share": rng.beta(2, 3, rows),
        "price": rng.lognormal(3, 1, rows).round(2),
        "angle": rng.vonmises(1.0, 2.0, rows) % (2 * np.pi),
        "day": days.astype("datetime64[us]"),
        "new": rng.random(rows) < 0.3,
        "unit": ["kg"] * rows,
    }
    return pandas.DataFrame(columns) if library == "pandas" else polars.DataFrame(columns)


def schema() -> Any:
    from flows.tables import Circular, Real, infer_schema

    found = infer_schema(frame())
    return type(found)({**found.kinds, "angle": Circular(2 * np.pi), "share": Real(0, 1)})


@cache
def table_of(*columns: str, condition: tuple[str, ...] = (), model: Any = None, **settings: Any) -> Any:
    import flows
    from flows import tables

    model = flows.Flow(flows.RealNVP(2)) if model is None else model
    settings = settings if model == "auto" else {"folds": 1, **settings}
    of_columns = frame()[list(columns)] if columns else frame()
    kinds = {name: kind for name, kind in schema().kinds.items() if name in of_columns.columns}
    return tables.fit(0, of_columns, tables.Schema(kinds, condition), model=model, **(QUICK | settings))


def said_of(result: Any, rows: Any, **given: Any) -> Any:
    text = re.sub(r"[\d.]+ (s|min)\b", "", repr(result))
    return result.log_prob(rows), result.draw(1, 5, **given), result.p_value(rows), text


def of_tables() -> dict[str, Callable[[], Any]]:
    import flows
    from flows import tables
    from flows.tables import infer_schema

    found = dict[str, Callable[[], Any]]()
    for library in ("pandas", "polars"):
        rows = partial(frame, library=library)
        found[f"infer, {library}"] = lambda rows=rows: repr(infer_schema(rows()))
        found[f"encode, {library}"] = lambda rows=rows: schema().fitted(rows()).encode(rows())
        found[f"decode, {library}"] = lambda rows=rows: (lambda of: of.decode(of.encode(rows())[:20]))(schema().fitted(rows()))
        found[f"fit and draw, {library}"] = lambda rows=rows: tables.fit(
            0, rows()[["guests", "x", "town"]], model=flows.Flow(flows.MAF(1)), **QUICK
        ).draw(1, 9)
    for name in ("guests", "share", "price", "day", "angle", "new"):
        model = "auto" if name in ("angle", "new") else None
        found[f"column {name}"] = lambda name=name, model=model: said_of(table_of(name, model=model), frame(20)[[name]])
    found |= {
        "fit": lambda: said_of(table_of(), frame(20)),
        "contributions": lambda: table_of().contributions(frame(12), verbose=0),
        "verified": lambda: repr(table_of().verify(frame(12))),
        "file": lambda: _of_file(table_of()),
        "given": lambda: said_of(
            table_of("x", "price", "town", condition=("town",)), frame(20)[["x", "price", "town"]], given={"town": "Oslo"}
        ),
        "quantile": lambda: (table_of("price").quantile([0.1, 0.5, 0.9]), table_of("price").interval(0.8)),
        "quantile, dates": lambda: table_of("day").quantile([0.1, 0.5, 0.9]),
        "codes alone": lambda: said_of(table_of("town", "new", model="auto"), frame(20)[["town", "new"]]),
        "out of bounds": lambda: table_of("share", "x").log_prob(frame(20)[["share", "x"]] * [2.0, 1.0], errors="coerce"),
        "weights": lambda: tables.fit(
            0, frame()[["x", "price"]], model=flows.Flow(flows.MAF(1)), weights="price", **QUICK
        ).draw(1, 1),
        "gaps": lambda: tables.fit(0, _gaps(), model=flows.Flow(flows.MAF(1)), gaps="drop", **QUICK).draw(1, 3),
        "validation": lambda: (
            tables.fit(
                0, frame()[["x", "share"]], model=flows.Flow(flows.MAF(1)), validation=frame(90)[["x", "share"]], **QUICK
            ).result.history
        ),
        "several": lambda: tables.fit(
            0, frame()[["x", "share"]], model=[flows.Flow(flows.MAF(1)), flows.Normal(trainable=True)], max_epochs=2, verbose=0
        ).draw(1, 3),
        "folds": lambda: tables.fit(0, frame()[["x"]], model=flows.Flow(flows.NSF(1)), **(QUICK | {"folds": 2})).draw(1, 3),
        "kinds": lambda: repr(schema().fitted(frame())),
        "context": lambda: table_of("x", "day", condition=("day",)).schema.rows(frame(20)[["x", "day"]]).context,
    }
    return found


def _gaps() -> Any:
    rows = frame()[["x", "share"]].copy()
    rows.loc[3:5, "x"] = np.nan
    return rows


def _of_file(result: Any) -> Any:
    from flows import tables

    with tempfile.TemporaryDirectory() as folder:
        result.save(f"{folder}/table.flows")
        return said_of(tables.load(f"{folder}/table.flows"), frame(9))


def of_checks() -> dict[str, Callable[[], Any]]:
    import flows

    def said(result: Any, rows: Any, **settings: Any) -> Any:
        checks = flows.check(result, rows, samples=1_000, **settings)
        return [(name, check.verdict, check.p, check.size, check.detail) for name, check in checks.items()], repr(checks)

    fit = cache(lambda: fitted(rows=rows_of()[:, :3]))
    conditional = cache(lambda: fitted(rows=rows_of()[:, 2:], context=by_minute(rows_of())))
    test, context = rows_of(rows=3_000)[2_400:], by_minute(rows_of(rows=3_000)[2_400:])
    names = ["shift", "rows", "normalisation", "sampler", "latents", "coverage", "columns", "pairs", "energy", "classifier"]
    found: dict[str, Callable[[], Any]] = {
        name: lambda name=name: said(fit(), test[:, :3], only=name, train=rows_of()[:, :3] if name == "copies" else None)
        for name in [*names, "copies"]
    }
    found |= {
        f"{name} given a context": lambda name=name: said(conditional(), test[:, 2:], context=context, only=name)
        for name in ("shift", "latents", "ranks", "tarp")
    }
    mixture = flows.Mixture(flows.Flow(flows.RealNVP(2)), flows.Flow(flows.MAF(1)))
    joint = flows.Joint(flows.Flow(flows.MAF(1)), flows.Flow(flows.NSF(1)), sizes=(1, 2))
    found |= {
        "a mixture": lambda: said(fitted(rows=rows_of()[:, :3], model=mixture), test[:, :3], only=["rows", "latents"]),
        "blocks": lambda: said(fitted(rows=rows_of()[:, :3], model=joint), test[:, :3], only=["rows", "latents"]),
        "counts": lambda: said(fitted(rows=np.round(rows_of()), dequantize=1.0), np.round(test), only=["latents", "columns"]),
        "a table": lambda: said(
            table_of("x", "share", "town"), frame(900)[["x", "share", "town"]], only=["columns", "latents"]
        ),
        "a posterior": lambda: said(_posterior(), np.random.default_rng(0).normal(size=(300, 2)), only=["columns", "energy"]),
    }
    return found


def _posterior() -> Any:
    import flows

    return flows.fit_to_density(0, flows.Flow(flows.RealNVP(2)), banana, 2, max_epochs=4, verbose=0)


def of_faults() -> dict[str, Callable[[], Any]]:
    """What is refused, and what is warned of: texts, in order."""
    import flows

    x, flow = rows_of(), flows.Flow(flows.RealNVP(2))
    nan, constant, far = x.copy(), x.copy(), x.copy()
    nan[7, 1], constant[:, 2], far[3, 1] = np.nan, 1.0, 1e30
    sphere, angles = flows.Flow(flows.SphereFlow(2), flows.SphereUniform()), flows.VonMises()
    noisy = flows.Flow(flows.Serial(flows.Dequantize(1.0), flows.RealNVP(1)))
    coded = flows.Joint(flows.Categorical(3), flows.Normal(trainable=True))
    behind = flows.Flow(flows.Serial(flows.MAF(1), flows.Logit()))
    blocks = flows.ChainRule(flows.Flow(flows.Logit()), flows.Normal(conditioner=flows.MLP(8)))
    whole, box = np.round(x), (0.0, 1.0)
    wrong: list[tuple[Any, Any, dict]] = [
        (flow, nan, {}), (flow, constant, {}), (flow, far, {}), (flow, x[:, 0], {}), (flow, x[:1], {}),
        (flow, x[:3], {"folds": 2}), (flow, np.column_stack([x, x[:, 1]]), {}),
        (flow, x, {"support": box}), (flow, x, {"support": (1.0, 0.0)}),
        (flow, x, {"dequantize": 1.0}), (flow, x, {"dequantize": True}), (flow, x, {"as_is": "price"}),
        (flow, x, {"as_is": (9,)}), (sphere, x[:, :3], {}),
        (coded, np.abs(whole[:, :2]) + 5, {}), (angles, np.round(x[:, :1] * 100), {}),
        (noisy, x, {}), (noisy, whole, {"dequantize": 1.0}), (noisy, whole, {"support": (-1e3, 1e3)}), (behind, x, {}),
        (blocks, x[:, :2], {}), (flow, x, {"context": np.ones((2_400, 1))}), (flow, x, {"context": np.ones(3)}),
        (flow, x, {"weights": -np.ones(2_400)}), (flow, x, {"validation": x[:, :2]}), (flow, x, {"folds": 2, "members": 2}),
        (flow, x, {"batch_size": 7, "accumulate": 2}), (flow, x, {"rows": "split"}), (flows.NSF(), x, {}), (flows.Flow, x, {}),
        (flow, constant, {"support": box}), (flow, far, {"dequantize": 1.0}), (noisy, constant, {"dequantize": 1.0}),
        (sphere, constant[:, :3], {"support": box}), (flow, iter([x]), {}), (flow, x, {"learning_rate": 0.0}),
    ]  # fmt: skip
    odd: list[tuple[Any, Any, dict]] = [
        (flow, np.concatenate([x, x[:40]]), {}), (flow, whole, {}), (flow, np.where(x > 9, 9, x), {}), (flow, x + 1e6, {}),
        (flow, np.where(np.arange(2_400)[:, None] % 2, 0.01 * x, 0.01 * x + 900), {}), (flow, x[:40], {"folds": 1}),
        (flow, x * np.array([1.0, 1.0, 1.0, 1e3]), {"support": {0: (-1e4, None)}}), (angles, x[:, 1:2] * 30, {}),
        (flow, x, {"validation": x[:90]}), (flows.Flow(flows.NSF(1)), x, {"standardize": False}), (flow, far - far.mean(), {}),
    ]  # fmt: skip
    refused = partial(_texts, [(flows.fit, (0, model, rows), settings) for model, rows, settings in wrong])
    warned = partial(_texts, [(flows.fit, (0, model, rows), settings) for model, rows, settings in odd])
    models = {"a": flow, "b": noisy}
    chosen = [(flows.select, (0, models, rows), {"max_epochs": 1, "verbose": 0}) for rows in (nan, constant, whole[:300])]
    return {"refused": refused, "warned of": warned, "refused or warned of by select": partial(_texts, chosen)}


def _texts(calls: list) -> list[str]:
    """Errors and warnings of each call, which ends after an epoch."""
    said = []
    for function, arguments, settings in calls:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                function(*arguments, **{"max_epochs": 1, "verbose": 0, **settings})
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
            said += [f"{each.category.__name__}: {each.message}" for each in told]
    return [re.sub(r" at 0x\w+", "", each) for each in said]


def register() -> dict[str, Callable[[], Any]]:
    for what, of in (("table", of_tables), ("check", of_checks), ("faults", of_faults)):
        CALLS.update({f"{what}: {name}": run for name, run in of().items()})
    return CALLS
