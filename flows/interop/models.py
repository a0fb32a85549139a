"""A model at one event and context, the static half of an object that other programs carry as a pytree of params; and points of
other programs, events with any leading axes, as rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flows.core import (
    Array,
    BijectionInit,
    DistributionInit,
    FlowsError,
    Memo,
    ModelValue,
    Params,
    Part,
    Shape,
    as_array,
    as_context,
    as_event,
    check_floats,
    check_structure,
    functions_of,
    is_constructor,
    joint_draw_of,
    shapes_of,
    size,
)
from flows.results import FitResult

_known = Memo(size=1024)


class Known(NamedTuple):
    """A model's part, the shapes of its params, and its functions: direct_fun and inverse_fun of a bijection; log_pdf,
    sample and `draw` of a distribution. `draw` returns samples and their log_pdf from one pass."""

    part: Any
    params: Any
    first: Callable
    second: Callable
    draw: Any


class Model(NamedTuple):
    """A constructor's value at one event and context, compared by value: equal models share compiled functions. A `scalar`
    model has one column, and its events are numbers in the other program, of shape ()."""

    init_fun: Any
    event: Shape
    context: Shape | None = None
    scalar: bool = False

    @property
    def known(self) -> Known:
        def make() -> Known:
            part: Part = self.init_fun.part(self.event, self.context)
            params = part.abstract_params()
            first, second = functions_of(part, params)
            joint = joint_draw_of(second)
            return Known(part, params, first, second, joint and joint.draw)

        return _known(self, make)

    @property
    def outer(self) -> Shape:
        """The shape of an event in the other program."""
        return () if self.scalar else self.event

    def check(self, params: Params, whose: str) -> None:
        """Refuse params of another model."""
        check_floats(params, whose)
        check_structure(params, shapes_of(self.known.params), whose)


def model_of(init_fun: Any, kind: type[ModelValue], input_dim: Any, context_dim: Any, whose: str) -> Model:
    """Return the model of a constructor's value at an event; refuse another kind, plain closures and lower bounds."""
    if is_constructor(init_fun):
        raise TypeError(f"{whose}: {init_fun.__name__} is a constructor; call it: {init_fun.__name__}(...)")
    if not isinstance(init_fun, kind):
        expected = "a bijection, such as flows.NSF()"
        if kind is DistributionInit:
            expected = "a distribution, such as flows.Flow(bijection)"
        raise TypeError(f"{whose}: got {_described(init_fun)}; expected {expected}")
    if init_fun.likelihood == "lower bound":
        raise FlowsError(
            f"{whose}: the log-density of {init_fun!r:.80} is a lower bound, and its draws have another density. Leave the "
            "layer that adds noise (Dequantize, Noise) out of it, and give it numbers that are not rounded"
        )
    model = Model(init_fun, as_event(input_dim), as_context(context_dim))
    if any(author.is_closure for author in init_fun.part(model.event, model.context).closures):
        raise FlowsError(
            f"{whose}: {init_fun!r:.80} has a plain closure in it, which makes new functions at every init, equal to no "
            "others. Make it a constructor with @flows.bijection, or @flows.distribution"
        )
    return model


def model_of_result(fitted: Any, whose: str) -> Model:
    """Return the model of a result, and check its params."""
    if not isinstance(fitted, FitResult):
        got = "a triple, whose model is not known" if isinstance(fitted, tuple) else f"{fitted!r:.60}"
        table_hint = " (a result of a table has it as .result)" * isinstance(getattr(fitted, "result", None), FitResult)
        raise TypeError(
            f"{whose}: got {got}; expected the result of flows.fit, fit_to_density, fit_ensemble or load{table_hint}. A model "
            "that was not fitted becomes one by flows.save(path, init_fun, params, input_dim), then flows.load(path)"
        )
    model = model_of(fitted.init_fun, DistributionInit, fitted.input_dim, fitted.context_dim, whose)
    model.check(fitted.params, f"{whose}: params")
    return model


def _described(init_fun: Any) -> str:
    nouns = {BijectionInit: "the bijection ", DistributionInit: "the distribution "}
    noun = next((noun for kind, noun in nouns.items() if isinstance(init_fun, kind)), "")
    if isinstance(init_fun, ModelValue) or not callable(init_fun):
        return f"{noun}{init_fun!r:.80}"
    return f"{getattr(init_fun, '__name__', repr(init_fun))!r:.60}, a plain closure, which no constructor made"


def as_rows(x: Any, event: Shape, what: str) -> tuple[Array, Shape]:
    """Return events with any leading axes as rows (n, *event), and these axes."""
    x = as_array(x, what)
    lead = leading(x.shape, event, what)
    return (x if len(lead) == 1 else x.reshape(size(lead), *event)), lead


def leading(shape: Shape, event: Shape, what: str) -> Shape:
    """Return the axes of a shape before the axes of the event."""
    cut = len(shape) - len(event)
    if cut < 0 or tuple(shape[cut:]) != event:
        axes = ", ".join(map(str, event))
        raise FlowsError(f"{what} has shape {tuple(shape)}; expected (..., {axes}), events {event} after any leading axes")
    return tuple(shape[:cut])
