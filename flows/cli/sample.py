"""`flows sample`: rows like those that a model was fitted to."""

import functools
from collections.abc import Iterator
from typing import Annotated, Any, Optional

import typer

from flows.cli.options import Model, Output, Shared, command

EXAMPLE = "flows sample power.flows -n 1000 -o drawn.csv"


@command("seed", "force", "separator", "encoding", "gaps", "no_cache")
def run(
    shared: Shared,
    model: Model,
    n: Annotated[int, typer.Option("-n", help="How many; with --given for each of its rows.")] = 1,
    output: Output = "-",
    where: Annotated[
        Optional[list[str]], typer.Option("--where", metavar="COL=VALUE", help="A value of the condition.")
    ] = None,
    given: Annotated[Optional[str], typer.Option("--given", metavar="FILE", help="Rows of the condition.")] = None,
) -> None:
    """Draw rows with the header, the order and the types of the data."""
    from flows.cli.failures import Mistake
    from flows.cli.models import keep_programs, loaded, print_json, reading_of
    from flows.cli.output import check_rows_output, write_rows

    if n < 1:
        raise Mistake(f"-n is {n}; expected 1 or more")
    if shared.json and output == "-":
        raise Mistake("--json prints what was drawn about the file; give -o FILE, too")
    check_rows_output(output, shared.force, model, given)
    table = loaded(model)
    reading = reading_of(shared, given or "-", table)
    keep_programs(shared.no_cache)
    counted = 0

    def frames() -> Iterator[Any]:
        nonlocal counted
        for frame in drawn(table, n, where or [], given, shared.seed, reading):
            counted += len(frame)
            yield frame

    write_rows(output, frames(), reading)
    if shared.json:
        print_json({"rows": counted, "file": output, "seed": shared.seed, "columns": list(table.schema)})
    elif output != "-" and not shared.quiet:
        print(f"wrote {counted:,} rows to {output}")


def drawn(table: Any, n: int, where: list[str], given: str | None, seed: int, reading: Any) -> Iterator[Any]:
    """Draws in blocks, each of which has a key of its own."""
    import jax

    from flows.cli.columns import WHERE
    from flows.cli.models import asked
    from flows.cli.output import of_any

    key = jax.random.key(seed)
    for number, (count, condition) in enumerate(_asked_for(table.schema, n, where, given, reading)):
        rng = jax.random.fold_in(key, number)
        if condition is None:
            yield of_any(table.draw(rng, count))
        else:
            block, rows = condition
            remedy = "Correct it, or draw from a model that has seen such values"
            draw = functools.partial(table.draw, rng, count)
            yield of_any(asked(draw, rows, given or WHERE, block, remedy))


def _asked_for(schema: Any, n: int, where: list[str], given: str | None, reading: Any) -> Iterator[tuple[int, Any]]:
    """How many draws of each block, and of which rows of the condition: `models.ROWS` draws at most."""
    from flows.cli.columns import of_options, typed
    from flows.cli.failures import Mistake
    from flows.cli.models import ROWS
    from flows.cli.source import Block, Source

    names = schema.condition
    if where and given:
        raise Mistake("--where and --given are given; expected one of them")
    if given and not names:
        raise Mistake("--given is given, and the model has no condition; fit with --condition COL")
    if names and not (where or given):
        options = " ".join(f"--where {name}=..." for name in names)
        raise Mistake(f"the model depends on {', '.join(names)}; give {options}, or --given")
    starts = range(0, n, ROWS)  # of which there may be more than memory has room for
    if given is None:
        rows = of_options(_values(where, names), schema) if where else None
        yield from ((min(ROWS, n - start), None if rows is None else (Block(rows), rows)) for start in starts)
        return
    source = Source(given, reading)
    for block in source.blocks(max(ROWS // n, 1)):  # of more draws than a block has, each row comes by itself
        rows = typed(block, source.origin, schema, names)
        yield from ((min(ROWS, n - start), (block, rows)) for start in starts)


def _values(where: list[str], names: tuple[str, ...]) -> dict[str, str]:
    """Values by the name of their column."""
    from flows.cli.failures import Mistake

    values = dict[str, str]()
    for text in where:
        if "=" not in text:
            raise Mistake(f"--where is {text!r}; expected COL=VALUE")
        name = next((name for name in names if text.startswith(f"{name}=")), text.partition("=")[0])
        if name not in names:
            has = f"the condition is {', '.join(names)}" if names else "the model has no condition"
            raise Mistake(f"--where names {name!r}, and {has}; fit with --condition {name}")
        if name in values:
            raise Mistake(f"--where names {name!r} twice; expected each column once, or --given with several rows")
        values[name] = text.removeprefix(f"{name}=")
    lacking = [name for name in names if name not in values]
    if where and lacking:
        raise Mistake(f"--where lacks {', '.join(lacking)}; give a value of each column of the condition")
    return values
