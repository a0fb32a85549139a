"""A model at one event and context, as other programs carry it: the static half of what is a pytree of params there. Their
points, events behind any leading axes, as rows."""

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
    """A model's part, the shapes of its params, and its functions: direct_fun and inverse_fun of a bijection; of a distribution
    log_pdf, sample, and `draw`, which makes samples and their log_pdf in one pass."""

    part: Any
    params: Any
    first: Callable
    second: Callable
    draw: Any


class Model(NamedTuple):
    """A constructor's value at one event and context: equal by value, and what is equal shares what was compiled. Events of a
    `scalar` model, of one column, are numbers in the other program, of shape ()."""

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
        """Refuse params that are not this model's."""
        check_floats(params, whose)
        check_structure(params, shapes_of(self.known.params), whose)


def model_of(
    init_fun: Any, kind: type[ModelValue], input_dim: Any, context_dim: Any, whose: str, scalar: bool = False
) -> Model:
    """A constructor's value at an event, checked: of the right kind, without plain closures, and no lower bound."""
    if is_constructor(init_fun):
        raise TypeError(f"{whose}: {init_fun.__name__} is a constructor; call it: {init_fun.__name__}(...)")
    if not isinstance(init_fun, kind):
        expected = "a bijection, such as flows.NSF()"
        if kind is DistributionInit:
            expected = "a distribution, such as flows.Flow(bijection)"
        raise TypeError(f"{whose}: got {_described(init_fun)}; expected {expected}")
    if init_fun.likelihood == "lower bound":
        raise FlowsError(
            f"{whose}: {init_fun!r:.80} has a log-density that is a lower bound, and draws that are not those of that density. "
            "Leave the layer that adds noise (Dequantize, Noise) out of it, and give it numbers that are not rounded"
        )
    model = Model(init_fun, as_event(input_dim), as_context(context_dim), scalar)
    if any(author.is_closure for author in init_fun.part(model.event, model.context).closures):
        raise FlowsError(
            f"{whose}: {init_fun!r:.80} has a plain closure in it, whose functions are those of one init and are equal to no "
            "others. Make it a constructor with @flows.bijection, or @flows.distribution"
        )
    return model


def model_of_result(fitted: Any, whose: str, scalar: bool = False) -> Model:
    """The model of a result, whose params are looked at."""
    if not isinstance(fitted, FitResult):
        got = "a triple, whose model is not known" if isinstance(fitted, tuple) else f"{fitted!r:.60}"
        of_table = ", which a table's result has as its .result" * isinstance(getattr(fitted, "result", None), FitResult)
        raise TypeError(
            f"{whose}: got {got}; expected the result of flows.fit, fit_to_density, fit_ensemble or load{of_table}. A model "
            "that was not fitted is one, too: flows.save(path, init_fun, params, input_dim), then flows.load(path)"
        )
    model = model_of(fitted.init_fun, DistributionInit, fitted.input_dim, fitted.context_dim, whose, scalar)
    model.check(fitted.params, f"{whose}: params")
    return model


def _described(init_fun: Any) -> str:
    nouns = {BijectionInit: "the bijection ", DistributionInit: "the distribution "}
    noun = next((noun for kind, noun in nouns.items() if isinstance(init_fun, kind)), "")
    if isinstance(init_fun, ModelValue) or not callable(init_fun):
        return f"{noun}{init_fun!r:.80}"
    return f"{getattr(init_fun, '__name__', repr(init_fun))!r:.60}, a plain closure, which no constructor made"


def as_rows(x: Any, event: Shape, what: str) -> tuple[Array, Shape]:
    """Events of any leading axes as rows (n, *event), and these axes."""
    x = as_array(x, what)
    lead = leading(x.shape, event, what)
    return (x if len(lead) == 1 else x.reshape(size(lead), *event)), lead


def leading(shape: Shape, event: Shape, what: str) -> Shape:
    """The axes of a shape before those of the event."""
    cut = len(shape) - len(event)
    if cut < 0 or tuple(shape[cut:]) != event:
        axes = ", ".join(map(str, event))
        raise FlowsError(f"{what} has shape {tuple(shape)}; expected (..., {axes}), events {event} behind any leading axes")
    return tuple(shape[:cut])
