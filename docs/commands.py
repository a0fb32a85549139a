"""The commands of the shell with their arguments and options, as typer reads them from the functions behind them."""

import inspect
from enum import Enum
from typing import get_args, get_type_hints

from typer.models import ArgumentInfo

from flows.cli.app import app

KINDS = {bool: "", int: "INTEGER", float: "NUMBER", str: "TEXT"}


def commands():
    """A heading for each command, with what it does, how it is called, and tables of all that it takes."""
    return "\n".join(line for each in app.registered_commands for line in described(each))


def described(command):
    hints = get_type_hints(command.callback, include_extras=True)
    parameters = inspect.signature(command.callback).parameters.values()
    taken = [(*get_args(hints[each.name]), each.default) for each in parameters]  # the type, what typer is told, the default
    arguments = [info for _, info, _ in taken if isinstance(info, ArgumentInfo)]
    options = [each for each in taken if not isinstance(each[1], ArgumentInfo)]
    usage = " ".join(["flows", command.name, *(info.metavar for info in arguments), "[OPTIONS]"])
    lines = [f"## flows {command.name}", "", inspect.cleandoc(command.callback.__doc__), "", "```text", usage, "```", ""]
    lines += ["| argument | what it is |", "|---|---|", *(f"| `{info.metavar}` | {info.help} |" for info in arguments), ""]
    lines += ["| option | what it is | default |", "|---|---|---|", *(row(*each) for each in options), ""]
    example = command.epilog.removeprefix("Example: ")
    return [*lines, "An example:", "", "```sh", example, "```", ""]


def row(kind, info, default):
    names = ", ".join(f"`{name}`" for name in (info.default, *info.param_decls))  # of typer.Option("-o", "--output")
    within = next((each for each in get_args(kind) if each is not type(None)), kind)  # of Optional[...] and list[...]
    many = within is not kind and "list" in str(kind)
    choice = isinstance(within, type) and issubclass(within, Enum)
    value = info.metavar or (r" \| ".join(within) if choice else KINDS[within])
    text = info.help + " It may be given several times." * many + " It is needed." * (default is inspect.Parameter.empty)
    shown = "" if default in (None, False, "", inspect.Parameter.empty) else f"`{getattr(default, 'value', default)}`"
    return f"| {names} {value} | {text} | {shown} |"
