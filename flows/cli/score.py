"""`flows score`: how likely, and how odd, each row of a file is."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from flows.cli.options import (
    Data,
    Debug,
    Encoding,
    Force,
    Format,
    Gaps,
    Json,
    Model,
    NoCache,
    Output,
    Quiet,
    ReadingOptions,
    Separator,
)

EXAMPLE = "flows score power.flows power.csv -o scored.csv"
LOG_PROB, ANOMALY, ODD, CONTRIBUTION = "log_prob", "anomaly", "odd_column", "contribution"
USUAL = 256  # draws whose contributions tell what is usual for a column


def run(
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
        float | None,
        typer.Option(
            "--oddest",
            help="For rows whose anomaly is at most this: the column that makes them odd, and log p of it given the others.",
        ),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="In front of the names of the new columns.")] = "",
    force: Force = False,
    format: Format = None,
    separator: Separator = None,
    encoding: Encoding = None,
    gaps: Gaps = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    no_cache: NoCache = False,
) -> None:
    """The rows of a file, as they are, with two columns more: log p in nats, and how usual a row is, from 0 to 1."""
    from flows.cli.failures import Mistake
    from flows.cli.models import keep_programs, kept_reading, loaded, print_json, reading_of
    from flows.cli.output import refuse_existing, separator_of, write_frames
    from flows.cli.source import Source

    if oddest is not None and not 0 < oddest <= 1:
        raise Mistake(f"--oddest is {oddest:g}; expected a share above 0, and at most 1")
    if json and output == "-":
        raise Mistake("--json prints what was found in all rows; give -o FILE, too")
    refuse_existing(output, force)
    table = loaded(model)
    reading = reading_of(ReadingOptions(format, separator, encoding, gaps), kept_reading(table))
    keep_programs(no_cache)
    source, tally = Source(data, reading), Tally()
    frames = _frames(table, source, coerce, oddest, prefix, tally, quiet)
    write_frames(output, frames, separator_of(output, reading.separator))
    found = {"rows": tally.rows, "scored": tally.scored, "log_prob": tally.total / max(tally.scored, 1), "file": output}
    if json:
        print_json({**found, "outside": tally.outside, "gaps": tally.gaps, "odd": tally.odd})
        return
    if tally.outside or tally.gaps:
        typer.echo(
            f"warning: {tally.outside} of {tally.rows} rows have an unknown category or a value out of bounds, and log_prob "
            f"-inf; {tally.gaps} have a gap, and empty cells",
            err=True,
        )
    if output != "-" and not quiet:
        print(f"wrote {tally.rows:,} rows to {output}, log_prob {found['log_prob']:.4f} on average")


class Tally:
    """What was seen of all rows."""

    def __init__(self) -> None:
        self.rows = self.scored = self.outside = self.gaps = self.odd = 0
        self.total = 0.0

    def add(self, log_p: Any) -> None:
        import numpy as np

        finite = np.isfinite(log_p)
        self.rows, self.scored = self.rows + len(log_p), self.scored + int(finite.sum())
        self.total += float(log_p[finite].sum())
        self.outside, self.gaps = self.outside + int(np.isneginf(log_p).sum()), self.gaps + int(np.isnan(log_p).sum())


def _frames(
    table: Any, source: Any, coerce: bool, oddest: float | None, prefix: str, tally: Tally, quiet: bool
) -> Iterator[Any]:
    """Blocks of rows with their new columns."""
    import warnings

    import polars as pl

    from flows.cli.failures import Mistake
    from flows.cli.models import blocks, scored

    names = [prefix + name for name in (LOG_PROB, ANOMALY, *((ODD, CONTRIBUTION) if oddest is not None else ()))]
    odd = None if oddest is None else _Odd(table, oddest, quiet)
    for block in blocks(source):
        taken = [name for name in names if name in block.frame.columns]
        if taken:
            raise Mistake(f"{source.name} has a column {taken[0]!r} already; give --prefix, such as --prefix new_")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*rows have an unknown category")  # counted over all blocks
            log_p, usual, rows = scored(table, source, block, coerce)
        tally.add(log_p)
        numbers = [pl.Series(name, values).fill_nan(None) for name, values in zip(names, (log_p, usual), strict=False)]
        if odd is not None:
            columns = odd.of(rows, usual)
            tally.odd += int(columns[0].is_not_null().sum())
            numbers += [column.alias(name) for column, name in zip(columns, names[2:], strict=True)]
        yield block.frame.with_columns(numbers)


class _Odd:
    """The column that makes a row odd: the one whose contribution is furthest below what is usual for it."""

    def __init__(self, table: Any, share: float, quiet: bool):
        self.table, self.share, self.quiet, self.usual = table, share, quiet, None

    def of(self, rows: Any, usual: Any) -> list[Any]:
        """For rows that are odd enough the name and its contribution; null for others."""
        import numpy as np
        import polars as pl

        places = np.flatnonzero(usual <= self.share)
        names = np.full(len(rows), None, object)
        values = np.full(len(rows), np.nan)
        if len(places):
            found = self._contributions(rows[places])
            below = np.nan_to_num(found - self._medians(rows, found), nan=np.inf)
            which = below.argmin(1)
            columns = np.array(self.columns, object)
            known = np.isfinite(below.min(1)) | np.isneginf(below.min(1))
            names[places] = np.where(known, columns[which], None)
            values[places] = np.where(known, found[np.arange(len(found)), which], np.nan)
        return [pl.Series(names.tolist(), dtype=pl.String), pl.Series(values).fill_nan(None)]

    def _contributions(self, rows: Any) -> Any:
        import sys

        import numpy as np

        loud = int(sys.stderr.isatty() and not self.quiet)
        frame = self.table.contributions(rows, errors="coerce", verbose=loud)
        self.columns = list(frame.columns)
        return np.stack([np.asarray(frame[name]) for name in frame.columns], 1)

    def _medians(self, rows: Any, found: Any) -> Any:
        """What is usual for each column, of draws; with a condition of the rows at hand."""
        import numpy as np

        if self.usual is None:
            if self.table.schema.condition:
                given = rows.select(self.table.schema.condition)[: min(USUAL, len(rows))]
                drawn = self.table.draw(0, 1, given)
            else:
                drawn = self.table.draw(0, USUAL)
            self.usual = np.nanmedian(self._contributions(drawn), 0)
        return self.usual
