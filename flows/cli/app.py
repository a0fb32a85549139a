"""The commands together: their arguments, help and exit status."""

from typing import Annotated, Any

import typer

import flows
from flows.cli import check, compare, fit, plot, sample, schema, score, show
from flows.cli.failures import USER, flushed, tell

app = typer.Typer(
    name="flows",
    help="From a file of rows to samples, scores and odd rows, by one exact density of all its columns.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (fit, schema, sample, score, check, plot, show, compare):
    name = command.__name__.rpartition(".")[2]
    app.command(name, epilog=f"Example: {command.EXAMPLE}")(command.run)


def _version(asked: bool) -> None:
    if asked:
        print(flows.__version__)
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
    except Exception as error:  # of typer, which may be built on the package click or not: an option or a value that is none
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            return USER
        known = [word for word in arguments[:1] if word in commands.commands]
        return tell(USER, f"{error.format_message().rstrip('.')}. See {' '.join(['flows', *known])} --help")
