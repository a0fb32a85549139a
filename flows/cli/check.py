"""`flows check`: whether the density of a model is right."""

from typing import Annotated, Optional

import typer

from flows.cli.options import FILES, Data, Model, Shared, command

EXAMPLE = "flows check power.flows new.csv --train power.csv"
FAILED = 3  # the exit status where something FAILs


@command("drop_gaps", "seed", *FILES, "no_cache")
def run(
    shared: Shared,
    model: Model,
    data: Data,
    train: Annotated[
        Optional[str],
        typer.Option("--train", metavar="FILE", help="Rows that the model was fitted to: are draws copies of them?"),
    ] = None,
    only: Annotated[
        Optional[list[str]],
        typer.Option("--only", metavar="NAME", help="A check to run; give it again for more. By default all."),
    ] = None,
    level: Annotated[float, typer.Option("--level", help="Of right models, the share that has a FAIL.")] = 0.01,
    n: Annotated[int, typer.Option("-n", help="Draws; with a condition 99 for each of 2,000 rows.")] = 10_000,
) -> int:
    """Is the density right? A verdict for each question, by rows that the model was not fitted to; exit status 3 for a FAIL."""
    import flows
    from flows.cli.failures import Mistake
    from flows.cli.models import keep_programs, loaded, print_json, with_rows

    _check_options(only, level, n)
    if data == train == "-":
        raise Mistake("DATA and --train are both stdin; give a file for one of them")
    table = loaded(model)
    keep_programs(shared.no_cache)

    seen = None if train is None else with_rows(table.schema.rows, train, table, shared)[1]
    _, rows, _ = with_rows(table.schema.rows, data, table, shared)
    checks = flows.check(table, rows, train=seen, rng=shared.seed, samples=n, level=level, only=only or None)
    if shared.json:
        print_json(checks.figures)
    else:
        print(checks)
    return 0 if checks.passed else FAILED


def _check_options(only: list[str] | None, level: float, n: int) -> None:
    """Refuse options before there is work."""
    from flows.checks.check import QUESTIONS
    from flows.checks.sample import LEAST
    from flows.cli.failures import Mistake

    for name in only or []:
        if name not in QUESTIONS:
            raise Mistake(f"--only is {name!r}; expected one of {', '.join(QUESTIONS)}")
    if not 0 < level < 1:
        raise Mistake(f"--level is {level:g}; expected a share between 0 and 1, such as 0.01")
    if n < LEAST:
        raise Mistake(f"-n is {n}; expected {LEAST} or more")
