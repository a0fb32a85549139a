"""`flows sample`: rows like those that a model was fitted to."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from flows.cli.options import Debug, Encoding, Force, Gaps, Json, Model, NoCache, Output, Quiet, ReadingOptions, Seed, Separator

EXAMPLE = "flows sample power.flows -n 1000 -o drawn.csv"


def run(
    model: Model,
    n: Annotated[int, typer.Option("-n", help="How many; with --given for each of its rows.")] = 1,
    output: Output = "-",
    where: Annotated[list[str] | None, typer.Option("--where", metavar="COL=VALUE", help="A value of the condition.")] = None,
    given: Annotated[str | None, typer.Option("--given", metavar="FILE", help="Rows of the condition.")] = None,
    seed: Seed = 0,
    force: Force = False,
    separator: Separator = None,
    encoding: Encoding = None,
    gaps: Gaps = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    no_cache: NoCache = False,
) -> None:
    """Draw rows with the header, the order and the types of the data."""
    from flows.cli.failures import Mistake
    from flows.cli.models import keep_programs, kept_reading, loaded, print_json, reading_of
    from flows.cli.output import refuse_existing, separator_of, write_frames

    if n < 1:
        raise Mistake(f"-n is {n}; expected 1 or more")
    if json and output == "-":
        raise Mistake("--json prints what was drawn about the file; give -o FILE, too")
    refuse_existing(output, force)
    table = loaded(model)
    reading = reading_of(ReadingOptions(None, separator, encoding, gaps), kept_reading(table))
    keep_programs(no_cache)
    counted = 0

    def frames() -> Iterator[Any]:
        nonlocal counted
        for frame in drawn(table, n, where or [], given, seed, reading):
            counted += len(frame)
            yield frame

    write_frames(output, frames(), separator_of(output, reading.separator))
    if json:
        print_json({"rows": counted, "file": output, "seed": seed, "columns": list(table.schema)})
    elif output != "-" and not quiet:
        print(f"wrote {counted:,} rows to {output}")


def drawn(table: Any, n: int, where: list[str], given: str | None, seed: int, reading: Any) -> Iterator[Any]:
    """Draws in blocks, each of which has a key of its own."""
    import jax

    from flows.cli.columns import WHERE, of_options, typed
    from flows.cli.failures import Mistake
    from flows.cli.models import ROWS, asked
    from flows.cli.output import of_any
    from flows.cli.source import Source

    names, key = table.schema.condition, jax.random.key(seed)
    if where and given:
        raise Mistake("--where and --given are given; expected one of them")
    values = _values(where, names)
    if names and not (where or given):
        raise Mistake(
            f"the model depends on {', '.join(names)}; give {' '.join(f'--where {name}=...' for name in names)}, or --given"
        )
    if given is None:
        row = of_options(values, table.schema) if where else None
        for block, start in enumerate(range(0, n, ROWS)):
            count, rng = min(ROWS, n - start), jax.random.fold_in(key, block)
            if row is None:
                yield of_any(table.draw(rng, count))
            else:
                yield of_any(
                    asked(lambda rows, rng=rng, count=count: table.draw(rng, count, rows), row, WHERE, 1, "Give another")
                )
        return
    if not names:
        raise Mistake("--given is given, and the model has no condition; fit with --condition COL")
    source = Source(given, reading)
    for number, some in enumerate(source.blocks(max(ROWS // n, 1))):
        rows, rng = typed(some, source.origin, table.schema, names), jax.random.fold_in(key, number)
        yield of_any(asked(lambda rows, rng=rng: table.draw(rng, n, rows), rows, source.name, some.first, "Correct it"))


def _values(where: list[str], names: tuple[str, ...]) -> dict[str, str]:
    """Values by the name of their column."""
    from flows.cli.failures import Mistake

    values = dict[str, str]()
    for text in where:
        name, mark, value = text.partition("=")
        if not mark:
            raise Mistake(f"--where is {text!r}; expected COL=VALUE")
        if name not in names:
            has = f"the condition is {', '.join(names)}" if names else "the model has no condition"
            raise Mistake(f"--where names {name!r}, and {has}; fit with --condition {name}")
        values[name] = value
    lacking = [name for name in names if name not in values]
    if where and lacking:
        raise Mistake(f"--where lacks {', '.join(lacking)}; give a value of each column of the condition")
    return values
