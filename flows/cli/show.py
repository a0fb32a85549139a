"""`flows schema`, `flows show` and `flows compare`: what a file of rows or a model holds, and which of models is the best."""

import functools
import json
import os
from typing import Annotated, Any

import numpy as np
import typer

import flows
from flows.cli.command import FILES, Condition, Data, Ignore, Mistake, Model, Output, Shared, command
from flows.cli.fitting import Columns, read
from flows.cli.models import ROWS, asked, keep_programs, loaded, typed
from flows.cli.output import check_output, print_json
from flows.cli.source import KEY, Source, reading_of
from flows.persistence.container import replacement

POINTS = 16  # of the cells of rounded values, where densities are compared with exact masses


@command("force", *FILES)
def schema(shared: Shared, data: Data, output: Output = "-", condition: Condition = None, ignore: Ignore = None) -> None:
    """Tell what the columns hold, and why, as JSON to edit and to hand to `flows fit --schema`."""
    if output != "-":
        check_output(output, shared.force, data)
    _, known = read(Source(data, reading_of(shared, data)), None, Columns.of(condition, ignore))
    if output != "-":
        with replacement(output) as file:
            file.write(known.to_json().encode())
        if not (shared.json or shared.quiet):
            print(f"{known}\n\nwrote {output}; edit it, and hand it to flows fit --schema {output}")
    if output == "-" or shared.json:
        print(known.to_json(), end="")


@command()
def show(shared: Shared, model: Model) -> None:
    """Show a model: as code, its schema, the rows it was fitted to, and how well it fits others."""
    about, table = flows.describe(model), loaded(model)
    facts = {
        "file": model,
        "bytes": os.path.getsize(model),
        "flows": about["flows"],
        "params": about["num_params"],
        **figures(table),
        "metadata": table.metadata,
    }
    if shared.json:
        print_json(facts)
        return
    print(f"{table.result!r}\n\n{table.schema!r}\n")
    lines = {
        "condition": ", ".join(facts["condition"]) or "none",
        "log-density": facts["likelihood"],
        "best epoch": ", ".join(str(epoch) if epoch >= 0 else "none, as the start was kept" for epoch in facts["best_epoch"])
        or "none, as it is a stack",
        "metadata": {key: value for key, value in table.metadata.items() if key != KEY} or "none",
        "file": f"{facts['bytes']:,} bytes, {facts['params']:,} numbers, written by flows {facts['flows']}",
        "as code": facts["model"],
    }
    for name, value in lines.items():
        print(f"{name:13}  {value}")


def figures(table: "flows.tables.TableResult") -> dict[str, Any]:
    """Return the figures of a fit."""
    history = table.result.history
    loss = history.get("gaussian_loss")
    return {
        "model": repr(table.result.init_fun),
        "likelihood": table.likelihood,
        "schema": json.loads(table.schema.to_json()),
        "condition": list(table.schema.condition),
        "rows": int(history["rows"]) if "rows" in history else None,
        "held_out": int(history["held_out"]) if "held_out" in history else None,
        "log_prob": -float(history.best) if "validation_loss" in history else None,
        "gaussian": None if loss is None else -float(loss),
        "best_epoch": np.atleast_1d([] if "stacked" in history else history.get("best_epoch", [])).tolist(),
    }


@command(*FILES, "no_cache")
def compare(
    shared: Shared,
    files: Annotated[
        list[str], typer.Argument(metavar="MODEL... DATA", help="Models, and the rows to score.", show_default=False)
    ],
) -> None:
    """The mean log p of the same rows by several models, and how far each is behind the best, with the standard error."""
    if len(files) < 3:
        raise Mistake("compare: expected two models or more, and a file of rows: flows compare a.flows b.flows data.csv")
    *models, data = files
    keep_programs(shared.no_cache)
    tables = [loaded(path) for path in models]
    for path, table in zip(models[1:], tables[1:], strict=True):
        if fault := _fault(tables[0].schema, table.schema):
            raise Mistake(f"{models[0]} and {path} cannot be compared: {fault}")
    points = POINTS if any(table.any_given_any for table in tables) else None  # whose masses are exact
    parts: list[list[np.ndarray]] = [[] for _ in models]
    for block in Source(data, reading_of(shared, data, tables[0])).blocks(ROWS):
        for part, table in zip(parts, tables, strict=True):
            score = functools.partial(table.log_prob, draws=points)
            part.append(asked(score, typed(block, table.schema), "Correct it, or leave the row out"))
    scores = np.stack([np.concatenate(part) for part in parts])
    means, root = scores.mean(1), np.sqrt(scores.shape[1])
    errors, best = [float(one.std() / root) for one in scores], int(means.argmax())
    behind = [(float((scores[best] - one).mean()), float((scores[best] - one).std() / root)) for one in scores]
    order = np.argsort(-means)
    if shared.json:
        ranked = [
            {"model": models[i], "log_prob": float(means[i]), "error": errors[i], "behind": list(behind[i])} for i in order
        ]
        print_json({"rows": scores.shape[1], "models": ranked})
        return
    width = max(len("model"), *map(len, models))
    print(f"{'model':{width}}  {'log-likelihood':>18}  {'behind the best':>18}")
    for i in order:
        nats = f"{means[i]:.3f} +- {errors[i]:.3f}"
        print(f"{models[i]:{width}}  {nats:>18}  {f'{behind[i][0]:.3f} +- {behind[i][1]:.3f}':>18}")


def _fault(one: Any, other: Any) -> str:
    """Return why densities of two schemas have unlike units; empty text where they have equal units."""
    for word, a, b in (
        ("conditions", set(one.condition), set(other.condition)),
        ("columns", set(one.columns), set(other.columns)),
        ("categories", set(one.codes), set(other.codes)),
    ):
        if a != b:
            odd = ", ".join(map(repr, sorted(a ^ b)[:5]))
            if word == "categories":
                return f"{odd} is a category in one and a number in the other"
            return f"their {word} are unlike, in {odd}"
    for name in one.codes:
        if (None in one[name].known) != (None in other[name].known):
            return f"gaps of {name!r} are a category in one and missing in the other"
        pools, same = {one[name].other, other[name].other}, set(one[name].known) == set(other[name].known)
        if pools != {None} and not (len(pools) == 1 and same):
            return f"rare values of the category {name!r} are pooled in one as they are not in the other"
    return ""
