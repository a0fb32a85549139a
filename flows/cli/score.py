"""`flows score`: how likely, and how odd, each row of a file is."""

from collections.abc import Iterator
from typing import Annotated, Any, Optional

import typer

from flows.cli.options import FILES, Data, Model, Output, Shared, command

EXAMPLE = "flows score power.flows power.csv -o scored.csv"
LOG_PROB, ANOMALY, ODD, CONTRIBUTION = "log_prob", "anomaly", "odd_column", "contribution"


@command("force", *FILES, "no_cache")
def run(
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
    oddest: Annotated[
        Optional[float],
        typer.Option(
            "--oddest",
            help="For rows whose anomaly is at most this: the column that makes them odd, and log p of it given the others.",
        ),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="In front of the names of the new columns.")] = "",
) -> None:
    """The rows of a file, as they are, with two columns more: log p in nats, and how usual a row is, from 0 to 1."""
    from flows.cli.failures import Mistake
    from flows.cli.models import keep_programs, loaded, print_json, reading_of
    from flows.cli.odd import Odd
    from flows.cli.output import check_rows_output, write_rows
    from flows.cli.source import Source

    if oddest is not None and not 0 < oddest <= 1:
        raise Mistake(f"--oddest is {oddest:g}; expected a share above 0, and at most 1")
    if shared.json and output == "-":
        raise Mistake("--json prints what was found in all rows; give -o FILE, too")
    check_rows_output(output, shared.force, model, data)
    table = loaded(model)
    reading = reading_of(shared, data, table)
    keep_programs(shared.no_cache)
    source, tally = Source(data, reading), Tally()
    write_rows(output, scored(table, source, coerce, Odd(table, oddest, shared.quiet), prefix, tally), reading)
    if shared.json:
        print_json({**tally.told(), "file": output})
        return
    if (tally.outside or tally.gaps) and not shared.quiet:
        typer.echo(
            f"warning: {tally.outside} of {tally.rows} rows have an unknown category or a value out of bounds, and log_prob "
            f"-inf; {tally.gaps} have a gap, and empty cells",
            err=True,
        )
    if output != "-" and not shared.quiet:
        print(f"wrote {tally.rows:,} rows to {output}, log_prob {tally.mean:.4f} on average")


class Tally:
    """Counts of all rows that were seen."""

    def __init__(self) -> None:
        self.rows = self.scored = self.outside = self.gaps = self.odd = 0
        self.total = 0.0

    def add(self, log_p: Any, odd: int) -> None:
        import numpy as np

        finite = np.isfinite(log_p)
        self.rows, self.scored, self.odd = self.rows + len(log_p), self.scored + int(finite.sum()), self.odd + odd
        self.total += float(log_p[finite].sum())
        self.outside, self.gaps = self.outside + int(np.isneginf(log_p).sum()), self.gaps + int(np.isnan(log_p).sum())

    @property
    def mean(self) -> float:
        return self.total / self.scored if self.scored else float("nan")

    def told(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("rows", "scored", "outside", "gaps", "odd")}
        return {**counts, "log_prob": self.mean}


def scored(table: Any, source: Any, coerce: bool, odd: Any, prefix: str, tally: Tally) -> Iterator[Any]:
    """Blocks of rows with their new columns."""
    import warnings

    import polars as pl

    from flows.cli.columns import typed
    from flows.cli.failures import Mistake
    from flows.cli.models import ROWS, asked

    errors, remedy = ("coerce", "Correct it") if coerce else ("raise", "Correct it, or give --coerce")
    names = [prefix + name for name in (LOG_PROB, ANOMALY, *((ODD, CONTRIBUTION) if odd.share else ()))]
    for block in source.blocks(ROWS):
        if taken := [name for name in names if name in block.frame.columns]:
            raise Mistake(f"{source.name} has a column {taken[0]!r} already; give --prefix, such as --prefix new_")
        rows = typed(block, source.origin, table.schema)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*have an unknown category|overflow")  # all blocks are counted
            both = asked(lambda rows: table.log_prob_and_anomaly(rows, errors=errors), rows, source.name, block, remedy)
            columns = [pl.Series(values).fill_nan(None) for values in both]
            columns += odd.of(rows, both[1]) if odd.share else []
        tally.add(both[0], int(columns[2].is_not_null().sum()) if odd.share else 0)
        yield block.frame.with_columns([column.alias(name) for column, name in zip(columns, names, strict=True)])
