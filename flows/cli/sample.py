"""`flows sample`: rows like those that a model was fitted to."""

import functools
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Optional

import jax
import polars as pl
import typer

from flows.cli.command import Mistake, Model, Output, Shared, command
from flows.cli.models import ROWS, asked, keep_programs, loaded, typed
from flows.cli.output import as_polars, check_rows_output, print_json, write_rows
from flows.cli.source import Block, Reading, Source, reading_of
from flows.results.frames import listed


@command("seed", "force", "separator", "encoding", "gaps", "no_cache")
def sample(
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
    if n < 1:
        raise Mistake(f"-n is {n}; expected 1 or more")
    if shared.json and output == "-":
        raise Mistake("--json prints what was drawn about the file; give -o FILE, too")
    check_rows_output(output, shared.force, model, given)
    table = loaded(model)
    reading = reading_of(shared, given or "-", table)
    keep_programs(shared.no_cache)
    count = 0

    def frames() -> Iterator[pl.DataFrame]:
        nonlocal count
        for frame in drawn(table, n, where or [], given, shared.seed, reading):
            count += len(frame)
            yield frame

    write_rows(output, frames(), reading)
    if shared.json:
        print_json({"rows": count, "file": output, "seed": shared.seed, "columns": list(table.schema)})
    elif output != "-" and not shared.quiet:
        print(f"wrote {count:,} rows to {output}")


def drawn(table: Any, n: int, where: list[str], path: str | None, seed: int, reading: Reading | None) -> Iterator[pl.DataFrame]:
    """Draws in blocks, each with a separate key."""
    key = jax.random.key(seed)
    for number, (count, condition) in enumerate(_asked_for(table, n, where, path, reading)):
        draw = functools.partial(table.draw, jax.random.fold_in(key, number), count)
        remedy = "Correct it, or draw from a model that has seen such values"
        yield as_polars(draw() if condition is None else asked(draw, condition, remedy))


def _asked_for(table: Any, n: int, where: list[str], path: str | None, reading: Any) -> Iterator[tuple[int, Block | None]]:
    """Numbers of draws of each block, `models.ROWS` at most, and the rows of the condition."""
    schema, any_columns = table.schema, table.any_given_any
    names = schema.columns if any_columns else schema.condition
    if where and path:
        raise Mistake("--where and --given are given; expected one of them")
    if path and not names:
        raise Mistake("--given is given, and the model has no condition; fit with --condition COL")
    if names and not (where or path or any_columns):
        options = " ".join(f"--where {name}=..." for name in names)
        raise Mistake(f"the model depends on {', '.join(names)}; give {options}, or --given")
    conditions: Iterable[Block | None] = [None]
    if path is not None:  # a row with more draws than a block has comes by itself
        blocks = Source(path, reading).blocks(max(ROWS // n, 1))
        conditions = (typed(block, schema, _there(block, names) if any_columns else names) for block in blocks)
    elif where:
        values = _values(where, names, any_columns)
        frame = pl.DataFrame({name: [text] for name, text in values.items()})
        conditions = [typed(Block(frame, [0], "--where"), schema, values)]
    for condition in conditions:  # each may have more draws than memory has room for
        yield from ((min(ROWS, n - start), condition) for start in range(0, n, ROWS))


def _there(block: Block, names: tuple[str, ...]) -> list[str]:
    """The columns of a model that a file has."""
    there = [name for name in names if name in block.frame.columns]
    if not there:
        raise Mistake(f"{block.name} has {listed(block.frame.columns)}; expected some of the columns {listed(names)}")
    return there


def _values(where: list[str], names: tuple[str, ...], some: bool) -> dict[str, str]:
    """Values by the name of their column; of all columns, or of some."""
    values = dict[str, str]()
    for text in where:
        if "=" not in text:
            raise Mistake(f"--where is {text!r}; expected COL=VALUE")
        name = next((name for name in names if text.startswith(f"{name}=")), text.partition("=")[0])
        if name not in names:
            has = f"the columns are {', '.join(names)}" if some else f"the condition is {', '.join(names)}"
            has = has if names else "the model has no condition"
            raise Mistake(f"--where names {name!r}, and {has}{'' if some else f'; fit with --condition {name}'}")
        if name in values:
            raise Mistake(f"--where names {name!r} twice; expected each column once, or --given with several rows")
        values[name] = text.removeprefix(f"{name}=")
    lacking = [name for name in names if name not in values and not some]
    if lacking:
        raise Mistake(f"--where lacks {', '.join(lacking)}; give a value of each column of the condition")
    return values
