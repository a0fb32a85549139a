"""The commands together: their arguments, help and exit status."""

from typing import Annotated, Any

import typer

from flows.cli.check import check, plot
from flows.cli.command import USER, flushed, tell
from flows.cli.fit import fit
from flows.cli.impute import impute
from flows.cli.sample import sample
from flows.cli.score import score
from flows.cli.show import compare, schema, show
from flows.core import first_line

EXAMPLES = {  # in the order of the help
    fit: "flows fit power.csv -o power.flows --minutes 2",
    schema: "flows schema power.csv -o schema.json",
    sample: "flows sample power.flows -n 1000 -o drawn.csv",
    impute: "flows impute power.flows gaps.csv -o full.csv",
    score: "flows score power.flows power.csv -o scored.csv",
    check: "flows check power.flows new.csv --train power.csv",
    plot: "flows plot power.flows power.csv -o pairs.png --columns voltage_v --columns active_power_kw",
    show: "flows show power.flows",
    compare: "flows compare small.flows large.flows power.csv",
}
app = typer.Typer(
    name="flows",
    help="From a file of rows to samples, scores and odd rows, by one exact density of all its columns.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command, example in EXAMPLES.items():
    app.command(command.__name__, epilog=f"Example: {example}")(command)


def _version(asked: bool) -> None:
    if asked:
        print(first_line())
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Do what comes before a command."""


def run(arguments: list[str]) -> int:
    """The exit status of a command: 0, 2 for a mistake of the user, 1 for a bug, 130 after Ctrl-C; 3 where a check FAILs."""
    commands: Any = typer.main.get_command(app)
    try:
        return flushed(lambda: int(commands.main(arguments, prog_name="flows", standalone_mode=False) or 0))
    except SystemExit:  # by which typer answers a closed pipe
        return 0
    except Exception as error:  # of typer, with the package click or without it: an unknown option or value
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            return USER
        known = [word for word in arguments[:1] if word in commands.commands]
        return tell(USER, f"{error.format_message().rstrip('.')}. See {' '.join(['flows', *known])} --help")
