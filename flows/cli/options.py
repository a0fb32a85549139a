"""Options that several commands have."""

from dataclasses import dataclass
from typing import Annotated, Optional

import typer

READING = "Reading"
Data = Annotated[str, typer.Argument(metavar="DATA", help="CSV, Parquet or npy; - is CSV from stdin.", show_default=False)]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A file that `flows fit` wrote.", show_default=False)]
Output = Annotated[str, typer.Option("-o", "--output", help="The file to write; - is stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
DropGaps = Annotated[bool, typer.Option("--drop-gaps", help="Leave out rows without a number or a date.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of all that is random.")]
Format = Annotated[
    Optional[str], typer.Option("--format", help="csv, parquet or npy; by default that of the ending.", rich_help_panel=READING)
]
Separator = Annotated[
    Optional[str],
    typer.Option(
        "--separator",
        help="Of CSV, such as ';' or '\\t'; by default a comma, or what the model was fitted to.",
        rich_help_panel=READING,
    ),
]
Encoding = Annotated[
    Optional[str],
    typer.Option("--encoding", help="Of CSV; by default utf-8, or what the model was fitted to.", rich_help_panel=READING),
]
Gaps = Annotated[
    Optional[str],
    typer.Option(
        "--gaps",
        help="Texts of missing values beside empty cells, by default NA,N/A,NaN,nan,NULL,null,None.",
        rich_help_panel=READING,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one object of JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors and results.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep no compiled programs for later commands.")]


@dataclass(frozen=True)
class ReadingOptions:
    """How a file is read, where it was said."""

    format: str | None
    separator: str | None
    encoding: str | None
    gaps: str | None


def marks_of(separator: str) -> str:
    """A separator as it is written in a shell."""
    return {"\\t": "\t", "tab": "\t"}.get(separator, separator)


def is_tsv(path: str) -> bool:
    """Whether the ending tells that tabs separate its values."""
    return path.lower().endswith(".tsv")
