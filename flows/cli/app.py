"""The commands together: their arguments, help and exit status."""

from typing import Annotated, Any

import typer

import flows
from flows.cli import compare, fit, sample, schema, score, show
from flows.cli.failures import STOPPED, USER, Stopped, status_of, tell, warn_in_one_line

app = typer.Typer(
    name="flows",
    help="From a file of rows to samples, scores and odd rows, by one exact density of all its columns.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (fit, schema, sample, score, show, compare):
    app.command(command.__name__.rpartition(".")[2], epilog=command.EXAMPLE)(command.run)


def _version(asked: bool) -> None:
    if asked:
        print(flows.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """What comes before a command."""


def run(arguments: list[str]) -> int:
    """The exit status of a command: 0, 2 for a mistake of the user, 1 for a bug, 130 after Ctrl-C."""
    warn_in_one_line()
    commands: Any = typer.main.get_command(app)

    def call() -> None:
        status = commands.main(arguments, prog_name="flows", standalone_mode=False)
        if status == STOPPED:  # as typer tells Ctrl-C
            raise Stopped

    try:
        return status_of(call, "--debug" in arguments)
    except Exception as error:  # of typer: an option that there is not, or a value that is none
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            return USER
        return tell(USER, f"{error.format_message()}. See flows {' '.join(arguments[:1])} --help")
