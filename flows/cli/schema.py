"""`flows schema`: what the columns of a file hold, as JSON to edit."""

from typing import Annotated, Optional

import typer

from flows.cli.options import Data, Debug, Encoding, Force, Format, Gaps, Json, Quiet, ReadingOptions, Separator

EXAMPLE = "flows schema power.csv -o schema.json"


def run(
    data: Data,
    output: Annotated[str, typer.Option("-o", "--output", help="The file to write; - is stdout.")] = "-",
    condition: Annotated[
        Optional[list[str]], typer.Option("--condition", metavar="COL", help="A column on which the others depend.")
    ] = None,
    ignore: Annotated[Optional[list[str]], typer.Option("--ignore", metavar="COL", help="A column that is not read.")] = None,
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
    from flows.cli.fitting import Columns, read
    from flows.cli.models import reading_of
    from flows.cli.output import check_output, write_text
    from flows.cli.source import Source

    if output != "-":
        check_output(output, force)
    source = Source(data, reading_of(ReadingOptions(format, separator, encoding, gaps), data))
    _, schema = read(source, None, Columns(tuple(condition or ()), tuple(ignore or ())))
    if output != "-":
        write_text(output, schema.to_json())
        if not (json or quiet):
            print(f"{schema}\n\nwrote {output}; edit it, and hand it to flows fit --schema {output}")
    if output == "-" or json:
        print(schema.to_json(), end="")
