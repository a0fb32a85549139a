"""`flows score`: how likely, and how odd, each row of a file is."""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Optional

import numpy as np
import polars as pl
import typer

import flows
from flows.cli.command import FILES, Data, Mistake, Model, Output, Shared, command
from flows.cli.models import ROWS, asked, keep_programs, loaded, typed
from flows.cli.output import check_rows_output, print_json, write_rows
from flows.cli.source import Source, reading_of

COLUMNS, ODD_COLUMNS = ("log_prob", "p_value"), ("odd_column", "contribution")


@command("force", *FILES, "no_cache")
def score(
    shared: Shared,
    model: Model,
    data: Data,
    output: Output = "-",
    coerce: Annotated[
        bool,
        typer.Option(
            "--coerce",
            help="Give -inf to an unknown category or a value out of bounds, and empty cells to rows with gaps.",
        ),
    ] = False,
    by: Annotated[str, typer.Option("--by", help="What p_value ranks: density, or columns, the oddest of a row.")] = "density",
    oddest: Annotated[
        Optional[float],
        typer.Option(
            "--oddest",
            help="For rows whose p_value is at most this: the column that makes them odd, and log p of it given the others.",
        ),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="In front of the names of the new columns.")] = "",
) -> None:
    """The rows of a file, as they are, with two columns more: log p in nats, and how usual a row is, from 0 to 1."""
    if oddest is not None and not 0 < oddest <= 1:
        raise Mistake(f"--oddest is {oddest:g}; expected a share above 0, and at most 1")
    if shared.json and output == "-":
        raise Mistake("--json prints what was found in all rows; give -o FILE, too")
    check_rows_output(output, shared.force, model, data)
    table = loaded(model)
    reading = reading_of(shared, data, table)
    keep_programs(shared.no_cache)
    sums: Any = Counter()
    verbose = int(sys.stderr.isatty() and not shared.quiet)
    odd = None if oddest is None else Odd(table, oddest, verbose)
    columns = {} if by == "density" else {"by": by, "verbose": verbose}
    write_rows(output, scored(table, Source(data, reading), coerce, columns, odd, prefix, sums), reading)
    mean = sums["log_prob"] / sums["scored"] if sums["scored"] else float("nan")
    if shared.json:
        print_json({**sums, "log_prob": mean, "file": output})
        return
    if (sums["outside"] or sums["gaps"]) and not shared.quiet:
        typer.echo(
            f"warning: {sums['outside']} of {sums['rows']} rows have an unknown category or a value out of bounds, and "
            f"log_prob -inf; {sums['gaps']} have a gap, and empty cells",
            err=True,
        )
    if output != "-" and not shared.quiet:
        print(f"wrote {sums['rows']:,} rows to {output}, log_prob {mean:.4f} on average")


def scored(
    table: "flows.tables.TableResult", source: Source, coerce: bool, by: Any, odd: "Odd | None", prefix: str, sums: Any
) -> Iterator[pl.DataFrame]:
    """Blocks of rows with their new columns; counts of rows, and log p of rows that have a density, are added to sums."""
    errors, remedy = ("coerce", "Correct it") if coerce else ("raise", "Correct it, or give --coerce")
    names = [prefix + name for name in (COLUMNS if odd is None else COLUMNS + ODD_COLUMNS)]
    for block in source.blocks(ROWS):
        if taken := [name for name in names if name in block.frame.columns]:
            raise Mistake(f"{source.name} has a column {taken[0]!r} already; give --prefix, such as --prefix new_")
        rows = typed(block, table.schema)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*have an unknown category|overflow")  # all blocks are counted
            log_p, p_values = asked(lambda frame: table.log_prob_and_p_value(frame, errors=errors), rows, remedy)
            p_values = table.p_value(rows.frame, errors=errors, **by) if by else p_values
            odd_columns = [] if odd is None else odd.columns_of(rows.frame, p_values)
        columns = [*(pl.Series(values).fill_nan(None) for values in (log_p, p_values)), *odd_columns]
        finite, num_odd = np.isfinite(log_p), odd_columns[0].count() if odd_columns else 0
        sums.update(rows=len(log_p), scored=int(finite.sum()), outside=int(np.isneginf(log_p).sum()))
        sums.update(gaps=int(np.isnan(log_p).sum()), odd=num_odd, log_prob=float(log_p[finite].sum()))
        yield block.frame.with_columns([column.alias(name) for column, name in zip(columns, names, strict=True)])


class Odd:
    """The column whose contribution is furthest below what is usual for it, of rows that are odd enough.

    Args:
        share: the largest `p_value` of such rows.
        verbose: 1 for bars of progress.
    """

    def __init__(self, table: "flows.tables.TableResult", share: float, verbose: int):
        self.table, self.share, self.verbose = table, share, verbose
        self.usual: np.ndarray | None = None

    def columns_of(self, rows: pl.DataFrame, p_values: np.ndarray) -> list[pl.Series]:
        """The name of the column, and its contribution; null for the other rows, and where there is no contribution."""
        places, schema = np.flatnonzero(p_values <= self.share), self.table.schema
        names, values = np.full(len(rows), None, object), np.full(len(rows), np.nan)
        if len(places):
            if self.usual is None:  # of draws; with a condition, at its values in these rows
                contexts = self.table.rows(rows, errors="coerce").context
                self.usual = flows.tables.contributions.usual_values(self.table.result, schema, contexts, self.verbose)
            frame = self.table.contributions(rows[places], errors="coerce", verbose=self.verbose)
            contributions = frame.select(schema.columns).to_numpy()
            below = np.nan_to_num(contributions - self.usual, nan=np.inf)
            least, known = below.argmin(1), below.min(1) < np.inf
            names[places[known]] = np.array(schema.columns, object)[least[known]]
            values[places[known]] = contributions[known, least[known]]
        return [pl.Series(names.tolist(), dtype=pl.String), pl.Series(values).fill_nan(None)]
