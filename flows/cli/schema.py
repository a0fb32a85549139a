"""`flows schema`: what the columns of a file hold, as JSON to edit."""

from flows.cli.options import FILES, Condition, Data, Ignore, Output, Shared, command

EXAMPLE = "flows schema power.csv -o schema.json"


@command("force", *FILES)
def run(shared: Shared, data: Data, output: Output = "-", condition: Condition = None, ignore: Ignore = None) -> None:
    """Tell what the columns hold, and why, as JSON to edit and to hand to `flows fit --schema`."""
    from flows.cli.fitting import Columns, read
    from flows.cli.models import reading_of
    from flows.cli.output import check_output, write_text
    from flows.cli.source import Source

    if output != "-":
        check_output(output, shared.force, data)
    source = Source(data, reading_of(shared, data))
    _, schema = read(source, None, Columns(tuple(condition or ()), tuple(ignore or ())))
    if output != "-":
        write_text(output, schema.to_json())
        if not (shared.json or shared.quiet):
            print(f"{schema}\n\nwrote {output}; edit it, and hand it to flows fit --schema {output}")
    if output == "-" or shared.json:
        print(schema.to_json(), end="")
