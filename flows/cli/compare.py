"""`flows compare`: which of several models gives the same rows the larger density."""

from typing import Annotated, Any

import typer

from flows.cli.options import FILES, Shared, command

EXAMPLE = "flows compare small.flows large.flows power.csv"


@command(*FILES, "no_cache")
def run(
    shared: Shared,
    files: Annotated[
        list[str], typer.Argument(metavar="MODEL... DATA", help="Models, and the rows to score.", show_default=False)
    ],
) -> None:
    """The mean log p of the same rows by several models, and how far each is behind the best, with the standard error."""
    import numpy as np

    from flows.cli.columns import typed
    from flows.cli.failures import Mistake
    from flows.cli.models import ROWS, asked, keep_programs, loaded, print_json, reading_of
    from flows.cli.source import Source

    if len(files) < 3:
        raise Mistake("compare: expected two models or more, and a file of rows: flows compare a.flows b.flows data.csv")
    *models, data = files
    keep_programs(shared.no_cache)
    tables = [loaded(path) for path in models]
    for path, table in zip(models[1:], tables[1:], strict=True):
        if fault := _fault(tables[0].schema, table.schema):
            raise Mistake(f"{models[0]} and {path} cannot be compared: {fault}")
    source = Source(data, reading_of(shared, data, tables[0]))
    parts: list[list[np.ndarray]] = [[] for _ in models]
    for block in source.blocks(ROWS):
        for part, table in zip(parts, tables, strict=True):
            frame = typed(block, source.origin, table.schema)
            part.append(asked(table.log_prob, frame, source.name, block, "Correct it, or leave the row out"))
    scores = np.stack([np.concatenate(each) for each in parts])
    means, root = scores.mean(1), np.sqrt(scores.shape[1])
    best = int(means.argmax())
    behind = [(float((scores[best] - one).mean()), float((scores[best] - one).std() / root)) for one in scores]
    order = np.argsort(-means)
    if shared.json:
        told = {"rows": scores.shape[1], "models": []}
        for i in order:
            error = float(scores[i].std() / root)
            told["models"].append({"model": models[i], "log_prob": float(means[i]), "error": error, "behind": list(behind[i])})
        print_json(told)
        return
    width = max(len("model"), *map(len, models))
    print(f"{'model':{width}}  {'log-likelihood':>18}  {'behind the best':>18}")
    for i in order:
        nats = f"{means[i]:.3f} +- {scores[i].std() / root:.3f}"
        print(f"{models[i]:{width}}  {nats:>18}  {f'{behind[i][0]:.3f} +- {behind[i][1]:.3f}':>18}")


def _fault(one: Any, other: Any) -> str:
    """Why densities of two schemas have unlike units; empty where they have the same."""
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
        pools, same = {one[name].other, other[name].other}, set(one[name].known) == set(other[name].known)
        if pools != {None} and not (len(pools) == 1 and same):
            return f"rare values of the category {name!r} are pooled in one as they are not in the other"
    return ""
