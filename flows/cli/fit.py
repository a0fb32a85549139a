"""`flows fit`: a model of the rows of a file."""

import sys
import time
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any, Optional

import typer

import flows
from flows.cli.command import FILES, Condition, Data, Ignore, Mistake, Shared, command
from flows.cli.fitting import Columns, read
from flows.cli.models import asked, keep_programs, loaded
from flows.cli.output import check_output, print_json
from flows.cli.show import figures
from flows.cli.source import Source, reading_of


class Models(StrEnum):
    """Models of the numbers."""

    auto = "auto"
    NSF = "NSF"
    MAF = "MAF"
    RealNVP = "RealNVP"
    Gaussian = "Gaussian"
    AnySubset = "AnySubset"


ENDS = {  # by whether time was over
    True: "its time was over: another run may differ",
    False: "no limit of time ended it: an equal run gives equal bytes",
}


@command("drop_gaps", "seed", "force", *FILES, "no_cache")
def fit(
    shared: Shared,
    data: Data,
    output: Annotated[str, typer.Option("-o", "--output", help="The file of the model.")],
    schema: Annotated[
        Optional[str], typer.Option("--schema", metavar="FILE", help="What columns hold, as `flows schema` writes it.")
    ] = None,
    start: Annotated[Optional[str], typer.Option("--from", metavar="MODEL", help="Fit this model further.")] = None,
    condition: Condition = None,
    ignore: Ignore = None,
    weights: Annotated[Optional[str], typer.Option("--weights", metavar="COL", help="How much each row counts.")] = None,
    groups: Annotated[Optional[str], typer.Option("--groups", metavar="COL", help="Hold out equal values together.")] = None,
    order: Annotated[Optional[str], typer.Option("--order", metavar="COL", help="Hold out rows of the last values.")] = None,
    model: Annotated[
        Models, typer.Option("--model", help="Model of numbers; auto keeps the best of several, AnySubset takes gaps.")
    ] = Models.auto,
    folds: Annotated[
        Optional[int], typer.Option("--folds", min=1, help="Average this many fits of one --model; by default 5 or 1.")
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", help="Minutes after which the fit ends with its epoch.")] = 5.0,
    max_epochs: Annotated[Optional[int], typer.Option("--max-epochs", min=1, help="Limit of epochs for each model.")] = None,
    rows: Annotated[Optional[int], typer.Option("--rows", min=1, help="Fit this many rows, drawn at random.")] = None,
    by_columns: Annotated[bool, typer.Option("--by-columns", help="Write what `flows score --by columns` needs.")] = False,
) -> None:
    """Fit one exact density to the rows of a file: numbers, counts, categories, dates, whatever its columns hold."""
    if not 0 < minutes < float("inf"):
        raise Mistake(f"--minutes is {minutes:g}; expected a number above 0")
    if output == "-":
        raise Mistake("-o is -; expected a file, as a model is not text for stdout")
    check_output(output, shared.force, data, schema, start)
    settings = {"schema": schema, "condition": condition, "folds": folds, "model": model != Models.auto}
    before = None if start is None else _before(start, **settings)
    source = Source(data, reading_of(shared, data, before))
    columns = Columns.of(condition, ignore, weights, groups, order)
    fitted = None if before is None else before.schema
    block, known = read(source, schema or start, columns, rows, shared.seed, model == Models.AnySubset, fitted)
    if not (shared.quiet or shared.json):
        print(f"{len(block.frame):,} rows of {source.name}\n{known}\n", flush=True)
    keep_programs(shared.no_cache)
    began, verbose = time.monotonic(), int(sys.stderr.isatty() and not shared.quiet)
    result = asked(
        lambda frame: flows.tables.fit(
            shared.seed,
            frame,
            known if before is None else None,
            model=before or _model(model, bool(known.condition or known.codes or known.angles), bool(known.numbers)),
            weights=weights,
            folds=folds,
            groups=groups,
            order=order,
            gaps="drop" if shared.drop_gaps else "refuse",
            max_epochs=max_epochs,
            total_minutes=minutes,
            verbose=verbose,
        ),
        block,
        "Correct it, or give --model AnySubset or --drop-gaps where it is a gap, or --schema with other kinds",
    )
    limited, (result, ahead) = time.monotonic() - began >= 60 * minutes, _leading(result)
    result.save(output, source.reading.metadata)
    if by_columns:
        flows.tables.contributions.column_scores(result.result, known, verbose)
        result.save(output, source.reading.metadata)
    _report(shared, result, output, limited, ahead)
    if _interrupted(result):
        raise KeyboardInterrupt(f"stopped; the best so far is in {output}")


def _report(shared: Shared, result: Any, output: str, limited: bool, ahead: str) -> None:
    """Print the fitted model, and the file that it is in."""
    if shared.json:
        print_json({**_figures(result), "file": output, "limited": limited, "flows": flows.__version__})
    elif not shared.quiet:
        selection = "" if result.selection is None else f"{result.selection}\n\n"
        print(f"{selection}{result.result!r}\nwrote {output}{ahead}; {ENDS[limited]}")


def _before(path: str, **options: Any) -> "flows.tables.TableResult":
    """Return the model from which a fit goes on; refuse options that it has already."""
    for name in (name for name, option in options.items() if option):
        raise Mistake(f"--{name} is given, and the model of --from has one already; leave it out, or leave out --from")
    return loaded(path)


def _model(model: Models, conditional: bool, numbers: bool) -> Any:
    """Return the model of the numbers, as `tables.fit` takes it."""
    if model == Models.AnySubset:
        return flows.AnySubset()
    if model == Models.auto or not numbers:
        return "auto"
    if model == Models.Gaussian:
        return flows.Normal(conditioner=flows.MLP(32)) if conditional else flows.Normal()
    return flows.Flow(getattr(flows, model.value)())


def _leading(table: Any) -> tuple[Any, str]:
    """Return the table with the stack of its models where that comes first, and by how much it leads, in words."""
    stacked = None if table.selection is None else table.selection.stacked
    if stacked is None or stacked.result is None or stacked.behind[0] >= 0:
        return table, ""
    lead = f", the stack, {-stacked.behind[0]:.3f} +- {stacked.behind[1]:.3f} nats a row ahead of the best single model"
    return replace(table, result=stacked.result), lead


def _interrupted(result: Any) -> bool:
    candidates = () if result.selection is None else result.selection.candidates
    return bool(result.result.history.interrupted) or any(
        one.failure.startswith("interrupted") or (one.result is not None and one.result.history.interrupted)
        for one in candidates
    )


def _figures(result: Any) -> dict[str, Any]:
    """Return the figures of a fit and of its candidates, for JSON."""
    if (selection := result.selection) is None:
        return figures(result)
    candidates = [
        {
            "model": candidate.name,
            "log_prob": candidate.nats,
            "error": candidate.error,
            "behind": list(candidate.behind),
            "params": candidate.num_params,
            "seconds": candidate.seconds,
            "failure": candidate.failure,
        }
        for candidate in selection.candidates
    ]
    stack = "stacked" in result.result.history
    return {**figures(result), "selection": candidates, "weights": selection.weights, "stack": stack}
