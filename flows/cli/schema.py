"""`flows schema`: what the columns of a file hold, as JSON to edit."""

from typing import Annotated

import typer

from flows.cli.options import Data, Debug, Encoding, Force, Format, Gaps, Json, Quiet, ReadingOptions, Separator

EXAMPLE = "flows schema power.csv -o schema.json"


def run(
    data: Data,
    output: Annotated[str, typer.Option("-o", "--output", help="The file to write; - is stdout.")] = "-",
    condition: Annotated[
        list[str] | None, typer.Option("--condition", metavar="COL", help="A column on which the others depend.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option("--ignore", metavar="COL", help="A column that is not read.")] = None,
    force: Force = False,
    format: Format = None,
    separator: Separator = None,
    encoding: Encoding = None,
    gaps: Gaps = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What the columns hold, and why, as JSON to edit and to hand to `flows fit --schema`."""
    from flows.cli.fitting import read_rows, schema_of
    from flows.cli.models import reading_of
    from flows.cli.output import refuse_existing, write_text

    refuse_existing(output, force)
    frame, source = read_rows(data, reading_of(ReadingOptions(format, separator, encoding, gaps)))
    text = schema_of(frame, source, None, tuple(condition or ()), tuple(ignore or ())).to_json()
    if output == "-":
        print(text, end="")
    else:
        write_text(output, text)
