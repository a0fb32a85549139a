"""Charts of what was measured, as HTML whose colours are the theme's: a page asks for one by `{{ charts("speed") }}`.

Every chart has a text for those who do not see it, and every bar its figure beside it.
"""

import math
import runpy
from html import escape
from pathlib import Path

MEASURED = runpy.run_path(str(Path(__file__).with_name("measured.py")))
STEPS = {"step": "a training step", "log_prob": "10,000 densities", "sample": "10,000 samples"}
TICKS = (-10, -1, -0.1, 0, 0.1, 1, 10)  # nats


def charts(name):
    return {"speed": speed, "first page": first_page, "verdicts": verdicts, "first fits": first_fits, "trust": trust}[name]()


def speed(whats=tuple(STEPS)):
    """For each model, two bars for each of these: ours, and the fastest other library's."""
    found = {what: MEASURED["races"](what) for what in whats}
    rows = {
        model: [
            bars((race.ours / longest(race), "ours", ms(race.ours)), (race.theirs / longest(race), "theirs", told(race)))
            for race in (found[what][model] for what in whats)
        ]
        for model in found[whats[0]]
    }
    ratios = (f"{model}: " + ", ".join(f"{STEPS[what]} {found[what][model].ratio:.2f}" for what in whats) for model in rows)
    alt = f"Time of the fastest other library over that of flows. {'; '.join(ratios)}."
    return chart(alt, {"ours": "flows", "theirs": "the fastest other library"}, [STEPS[what] for what in whats], rows)


def first_page():
    return speed(("log_prob", "sample"))


def longest(race):
    return max(race.ours, race.theirs)


def told(race):
    return f"{ms(race.theirs)}, {race.library}"


def ms(time):
    return f"{time / 1000:.3g} s" if time >= 1000 else f"{time:.3g} ms"


def verdicts():
    """Of how many sets NSF() is ahead, level and behind, beside each of the others."""
    found = {name: MEASURED["verdicts"](other) for other, name in NAMES.items()}
    rows = {
        name: [segments((each / sum(of), kind, each) for each, kind in zip(of, ("ours", "level", "theirs"), strict=True))]
        for name, of in found.items()
    }
    alt = "; ".join(f"{name}: ahead on {a}, level on {b}, behind on {c} sets" for name, (a, b, c) in found.items())
    return chart(f"NSF() without options beside {alt}.", {"ours": "ahead", "level": "level", "theirs": "behind"}, [], rows)


NAMES = {
    "mixture": "the best mixture of Gaussians",
    "kernel density": "a kernel density",
    "flowjax": "flowjax's loop",
    "zuko": "zuko's loop",
}
MARKS = {"NSF()": "ours", "mixture": "square", "kernel density": "diamond", "flowjax": "triangle", "zuko": "wedge"}


def first_fits():
    """For each set, how far each method is ahead of the best one that is not ours; the axis is a logarithm both ways."""
    best = best_others()
    found = {method: {name: MEASURED["ahead"](method, best[name]).get(name) for name in best} for method in MARKS}
    order = sorted(best, key=lambda name: -found["NSF()"][name])
    rows = {name: [dots((found[method][name], mark, method) for method, mark in MARKS.items())] for name in order}
    scale = "".join(f'<b style="left:{place(tick):.1f}%">{tick:g}</b>' for tick in TICKS)
    rows["nats a row"] = [f'<div class="dots axis">{scale}</div>']
    alt = "; ".join(f"{name} {found['NSF()'][name]:+.2f} beside {best[name]}" for name in order)
    legend = {mark: method for method, mark in MARKS.items()}
    return chart(f"Nats a row by which NSF() is ahead of the best method that is not ours: {alt}.", legend, [], rows)


def best_others():
    found = {}
    for name, of in MEASURED["results"]("first_fit").items():
        others = [other for other in MEASURED["OTHERS"] if of.get(other)]
        found[name] = max(others, key=lambda other: sum(each["nats"] for each in of[other].values()) / len(of[other]))
    return found


def place(nats):
    """On the axis, in percent; what lies beyond its ends is drawn there."""
    return 50 + 48 * max(-1.0, min(1.0, math.asinh(nats / 0.05) / math.asinh(20 / 0.05)))


def trust():
    """For each deep model, the share of rows that are off ten times as far out as the data, with and without safe defaults."""
    found = MEASURED["deep"]()
    found = {name: found[name] for name in sorted(found, key=lambda name: name.split(", ")[-1])}  # set by set
    rows = {
        name: [bars((far, "ours", f"{far:.1%}"), (unsafe, "theirs", f"{unsafe:.1%}")), f"<em>{near:.2%}</em>"]
        for name, (near, far, unsafe) in found.items()
    }
    alt = "; ".join(f"{name}: {far:.1%}, unsafe {unsafe:.1%}, near {near:.2%}" for name, (near, far, unsafe) in found.items())
    legend = {"ours": "as models are by default", "theirs": "without bounds on what networks see"}
    heads = ["rows that are off, ten times as far out", "among the data"]
    return chart(f"Shares of rows whose round trip or log-det is off by more than a thousandth. {alt}.", legend, heads, rows)


# Of what charts are made


def chart(alt, legend, heads, rows):
    keys = "".join(f'<span><i class="{kind}"></i>{escape(text)}</span>' for kind, text in legend.items())
    columns = len(next(iter(rows.values())))
    cells = ["<span></span>", *(f"<b>{escape(head)}</b>" for head in heads)] if heads else []
    for name, row in rows.items():
        heads_of = [f' data-head="{escape(head)}"' for head in heads] or [""] * columns
        cells += [
            f"<span>{escape(name)}</span>",
            *(f"<div{head}>{cell}</div>" for head, cell in zip(heads_of, row, strict=True)),
        ]
    body = f'<div class="legend">{keys}</div><div class="rows" style="--columns:{columns}">{"".join(cells)}</div>'
    return f'```{{raw}} html\n<div class="chart" role="img" aria-label="{escape(alt)}">{body}</div>\n```'


def bars(*each):
    """One below the other: their length, of the longest; the class; the text behind it."""
    return "".join(
        f'<div class="bar"><i class="{kind}" style="--share:{share:.3f}"></i><em>{text}</em></div>'
        for share, kind, text in each
    )


def segments(each):
    parts = (f'<i class="{kind}" style="width:{100 * share:.1f}%">{count}</i>' for share, kind, count in each if count)
    return f'<div class="segments">{"".join(parts)}</div>'


def dots(each):
    marks = (
        f'<i class="{mark}" style="left:{place(nats):.1f}%" title="{escape(method)} {nats:+.2f}"></i>'
        for nats, mark, method in reversed([*each])  # ours is drawn last, on top
        if nats is not None
    )
    return f'<div class="dots">{"".join(marks)}</div>'
