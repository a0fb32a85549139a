"""What a fitted model says of how its columns were prepared."""

from collections.abc import Sequence
from typing import Any

from flows.bijections.whiten import Whiten
from flows.core import DistributionInit, Shape

SHOWN = 6  # columns that are named


def freed_columns(init_fun: Any, event: Shape, names: Sequence[str] | None) -> str:
    """Which columns a model frees of what those before them tell, or ""."""
    within = [init_fun, *init_fun.values_within()] if isinstance(init_fun, DistributionInit) else []
    layers = [value.arguments for value in within if value.constructor is Whiten]
    if not layers or len(event) != 1:
        return ""
    stay = {0}.union(set.intersection(*({*arguments["unmixed"], *arguments["as_is"]} for arguments in layers)))
    freed = [j for j in range(event[0]) if j not in stay]
    if not freed:
        return ""
    if len(freed) == event[0] - 1:
        return "each is freed of those before it"
    if len(freed) > SHOWN:
        return f"{len(freed)} are freed of those before them, which tell nearly all of each"
    which = ", ".join(repr(names[j]) if names else str(j) for j in freed)
    return (
        f"column {which} is freed of those before it" if len(freed) == 1 else f"columns {which} are freed of those before them"
    )
