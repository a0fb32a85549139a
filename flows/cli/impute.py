"""`flows impute`: the rows of a file with their gaps filled."""

import functools
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Optional

import jax
import polars as pl
import typer

import flows
from flows.cli.command import FILES, Data, Mistake, Model, Output, Shared, command
from flows.cli.models import ROWS, asked, keep_programs, loaded, typed
from flows.cli.output import TIME, as_polars, check_rows_output, print_json, write_rows
from flows.cli.source import Block, Source, reading_of

DRAW = "draw"  # the column that counts draws


@command("seed", "force", *FILES, "no_cache")
def impute(
    shared: Shared,
    model: Model,
    data: Data,
    output: Output = "-",
    draws: Annotated[
        Optional[int],
        typer.Option("--draws", min=1, help='Draw the gaps this often: copies of each 8,192 rows, numbered in "draw".'),
    ] = None,
) -> None:
    """Fill the gaps of a file by means and the likeliest categories, or by draws; the other cells are written as they are."""
    if shared.json and output == "-":
        raise Mistake("--json prints what was filled; give -o FILE, too")
    check_rows_output(output, shared.force, model, data)
    table = loaded(model)
    if not table.any_given_any:
        raise Mistake(f"{model} is of no rows with gaps; fit one that is: flows fit DATA -o MODEL --model AnySubset")
    reading = reading_of(shared, data, table)
    keep_programs(shared.no_cache)
    sums: Any = Counter()
    write_rows(output, filled(table, Source(data, reading), draws, shared.seed, sums), reading)
    if shared.json:
        print_json({"rows": sums["rows"], "gaps": sums["gaps"], "draws": draws, "file": output, "seed": shared.seed})
    elif not shared.quiet:
        there = f"{sums['gaps']:,} gaps of {sums['rows']:,} rows" if sums["gaps"] else "no gaps, and copied its rows"
        typer.echo(f"filled {there}" if sums["gaps"] else f"found {there}", err=output == "-")


def filled(
    table: "flows.tables.TableResult", source: Source, draws: int | None, seed: int, sums: Any
) -> Iterator[pl.DataFrame]:
    """Blocks of rows with their gaps filled, each as often as there are draws; counts of rows and gaps are added to sums."""
    for number, block in enumerate(source.blocks(ROWS)):
        if draws is not None and DRAW in block.frame.columns:
            raise Mistake(f"{source.name} has a column {DRAW!r} already, which would count draws; rename it")
        rows, key = typed(block, table.schema), jax.random.fold_in(jax.random.key(seed), number)
        gaps = {name: column for name in rows.frame.columns if (column := _gaps(rows.frame[name])).any()}
        sums.update(rows=len(rows.frame))
        for draw in range(draws or 1):
            rng = None if draws is None else jax.random.fold_in(key, draw)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*has no gaps")  # all blocks are counted
                full = as_polars(asked(functools.partial(table.impute, rng=rng), rows, "Correct it"))
            sums.update(gaps=sum(int((gap & ~_gaps(full[name])).sum()) for name, gap in gaps.items()) if draw == 0 else 0)
            frame = block.frame.with_columns(_written(block, full[name], gap, table) for name, gap in gaps.items())
            yield frame if draws is None else frame.with_columns(pl.lit(draw + 1).alias(DRAW))


def _gaps(column: pl.Series) -> pl.Series:
    return column.is_null() | (column.is_nan() if column.dtype.is_float() else False)


def _written(block: Block, full: pl.Series, gaps: pl.Series, table: "flows.tables.TableResult") -> pl.Series:
    """The column of a block with other values in its gaps, dates as they are written next to them."""
    column = block.frame[full.name]
    if block.is_text and full.dtype == pl.Datetime:
        texts = column.filter(~gaps).str.strip_chars().unique(maintain_order=True).to_list()
        zone = getattr(full.dtype, "time_zone", None)
        if not zone and (ways := flows.tables.kinds.notation.dates_in(texts).ways):
            written = [None if time is None else flows.tables.kinds.notation.date_text(time, ways[0]) for time in full]
            full = pl.Series(full.name, written, pl.String)
        else:
            days = table.schema.complete(full.name).step % flows.tables.kinds.date.DAY == 0 and not any(
                ":" in text for text in texts
            )
            full = full.dt.strftime("%Y-%m-%d" if days else TIME + "%:z" * bool(zone))
    return column.zip_with(~gaps, full.cast(column.dtype))
