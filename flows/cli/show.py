"""`flows show`: what is in a file."""

from typing import Any

from flows.cli.options import Model, Shared, command

EXAMPLE = "flows show power.flows"


@command()
def run(shared: Shared, model: Model) -> None:
    """Show a model: as code, its schema, the rows it was fitted to, and how well it fits others."""
    import os

    import flows
    from flows.cli.models import KEY, loaded, print_json

    about = flows.describe(model)
    table = loaded(model)
    told = {
        "file": model,
        "bytes": os.path.getsize(model),
        "flows": about["flows"],
        "params": about["num_params"],
        **figures(table),
        "metadata": table.metadata,
    }
    if shared.json:
        print_json(told)
        return
    print(f"{table.result!r}\n\n{table.schema!r}\n")
    lines = {
        "condition": ", ".join(told["condition"]) or "none",
        "log-density": told["likelihood"],
        "best epoch": ", ".join(str(one) if one >= 0 else "none, as the start was kept" for one in told["best_epoch"]),
        "metadata": {key: value for key, value in table.metadata.items() if key != KEY} or "none",
        "file": f"{told['bytes']:,} bytes, {told['params']:,} numbers, written by flows {told['flows']}",
        "as code": told["model"],
    }
    for name, value in lines.items():
        print(f"{name:13}  {value}")


def figures(table: Any) -> dict[str, Any]:
    """Return the figures of a fit."""
    import json

    import numpy as np

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
        "best_epoch": np.atleast_1d(history.get("best_epoch", [])).tolist(),
    }
