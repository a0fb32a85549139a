"""The tables and the picture of what `speed.py` measured; `tables.py` writes them anew, from results/speed.json.

In speed.md and peers.md each stands between two comments, <!-- NAME --> and <!-- end -->.
"""

import re
from pathlib import Path
from textwrap import fill

import records

FOLDER = Path(__file__).resolve().parent
PAGES = FOLDER / "speed.md", FOLDER / "peers.md"
RESULTS = FOLDER / "results" / "speed.json"
COLUMNS = ("floor", "flows", "flows_repeat", "flows_unrolled", "flowjax", "distrax", "bijx", "zuko", "nflows")
NAMES = {"flows_repeat": "a loop", "flows_unrolled": "unrolled"}
OURS = ("floor", "flows", "flows_repeat", "flows_unrolled")
GROUPS = {"step": "step", "log_prob": "10,000 densities", "sample": "10,000 samples", "memory": "memory of the process, MiB"}
FLOORS = {"RealNVP d43": 1.1, "NSF coupling d21": 1.4, "NSF autoregressive d21": 1.5, "MAF d21": 1.1, "MAF d63": 1.1}


def rows_of(header: list, rows: list[list]) -> str:
    """A table in Markdown; numbers with three digits."""

    def cell(value: object) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"

    lines = [header, ["---"] * len(header), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def throughput(results: dict, threads: int) -> dict[str, dict]:
    """By workload, what was measured with so many threads."""
    found = {}
    for key, each in results.items():
        named = re.fullmatch(r"throughput (.*), (\d) threads?", key)
        if named and int(named[2]) == threads:
            found[named[1]] = each
    return found


def side_by_side(results: dict, threads: int) -> str:
    """A row for each workload, in groups; a column for each library."""
    found = throughput(results, threads)
    columns = [name for name in COLUMNS if any(name in each for each in found.values())]
    rows = []
    for what, title in GROUPS.items():
        rows.append([f"**{title}**", *[""] * len(columns)])
        for workload, each in found.items():
            rows.append([workload, *[float(each[name][what]) if what in each.get(name, {}) else "" for name in columns]])
    return rows_of(["", *[NAMES.get(name, name) for name in columns]], rows)


def ratios(results: dict) -> str:
    """What a step costs in multiples of its floor and of the fastest other library, and a sample in multiples of a density."""
    rows = []
    for workload, each in throughput(results, 1).items():
        if not {"floor", "flows"} <= set(each):
            continue
        row: list = [workload, each["flows"]["step"] / each["floor"]["step"], FLOORS.get(workload, "")]
        for what in ("step", "log_prob", "sample"):
            others = {name: of[what] for name, of in each.items() if name not in OURS and what in of}
            best = min(others, key=others.__getitem__, default="")
            row.append(f"{others[best] / each['flows'][what]:.2f} ({best})" if best else "")
        rows.append([*row, each["flows"]["sample"] / each["flows"]["log_prob"]])
    header = [
        "",
        "step / floor",
        "target",
        "step of the fastest other / ours",
        "its densities",
        "its samples",
        "sample / density",
    ]
    return rows_of(header, rows)


def by_depth(results: dict) -> str:
    found = results["first calls"]
    depths = list(next(iter(found.values())))
    rows = []
    for what, title in {"step": "step", "log_prob": "densities", "sample": "samples", "memory": "memory, MiB"}.items():
        rows.append([f"**{title}**", *[""] * len(depths)])
        rows += [[NAMES.get(name, name), *[of[depth][what] for depth in depths]] for name, of in found.items()]
    return rows_of(["layers", *depths], rows)


def by_library(found: dict) -> str:
    return rows_of(["", *next(iter(found.values()))], [[name, *of.values()] for name, of in found.items()])


def loops(results: dict) -> str:
    threads = sorted(int(key.split()[1]) for key in results if key.startswith("loops"))
    header = [""]
    for n in threads:
        header += [f"{n} core{'s' * (n > 1)}: flows", "flowjax", "ratio"]
    rows = []
    for workload in results[f"loops {threads[0]}"]:
        row: list = [workload]
        for n in threads:
            of = results[f"loops {n}"][workload]
            row += [of["flows"], of["flowjax"], of["flowjax"] / of["flows"]]
        rows.append(row)
    return rows_of(header, rows)


def kernels(results: dict) -> str:
    found = results["kernels"]
    purposes = sorted(
        {each for of in found.values() for each in of}, key=lambda each: -max(of.get(each, 0) for of in found.values())
    )
    rows = [[each, *[of.get(each, 0.0) for of in found.values()]] for each in purposes]
    above = [(sum(of.values()) - of["products"]) / of["products"] for of in found.values()]
    return rows_of(["ms", *found], [*rows, ["**all but the products / the products**", *above]])


def versions(results: dict) -> str:
    of = results["machine"]
    each = "; ".join(", ".join(f"{name} {version}" for name, version in held.items()) for held in of["versions"])
    return fill(f"Measured on: {of['processor']}. Versions: {each}.", 128)


def tables(results: dict) -> dict[str, str]:
    """The Markdown of each table, by the name that it has on its page."""
    found = {"machine": versions(results), "one core": side_by_side(results, 1), "ratios": ratios(results)}
    if "first calls" in results:
        found["first calls"] = by_depth(results)
    found |= {name: by_library(results[name]) for name in ("first fit", "sizes", "small", "eager") if name in results}
    if any(key.startswith("loops") for key in results):
        found["loops"] = loops(results)
    if "kernels" in results:
        found["kernels"] = kernels(results)
    return found


def written(pages: dict[Path, str], found: dict[str, str]) -> dict[Path, str]:
    """The pages with these tables in their places."""
    pages = dict(pages)
    for name, table in found.items():
        places = 0
        for page, text in pages.items():
            pages[page], here = re.subn(
                rf"(<!-- {name} -->\n).*?(<!-- end -->)",
                lambda at, table=table: f"{at[1]}\n{table}\n\n{at[2]}",
                text,
                flags=re.DOTALL,
            )
            places += here
        if places != 1:
            names = " and ".join(page.name for page in pages)
            raise ValueError(f"<!-- {name} --> stands in {places} places of {names}, expected 1")
    return pages


def read_pages() -> dict[Path, str]:
    return {page: page.read_text() for page in PAGES}


def rewrite(results: dict) -> None:
    """The tables of the pages anew."""
    for page, text in written(read_pages(), tables(results)).items():
        page.write_text(text)


def picture(results: dict, path: Path) -> None:
    """Steps, densities and samples in multiples of the floor, on one core."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = throughput(results, 1)
    libraries = [name for name in COLUMNS if name not in OURS[2:] and name != "floor"]
    colors = dict(zip(libraries, ["#0b5394", "#e69138", "#f1c232", "#93c47d", "#a64d79", "#999999"], strict=True))
    panels = {"step": "A training step", "log_prob": "10,000 densities", "sample": "10,000 samples"}
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    for axis, (what, title) in zip(axes, panels.items(), strict=True):
        for place, each in enumerate(found.values()):
            present = [name for name in libraries if what in each.get(name, {})]
            floor = each["floor"]["step" if what == "step" else "log_prob"]
            for i, name in enumerate(present):
                x = place + (i - (len(present) - 1) / 2) * 0.13
                axis.bar(x, each[name][what] / floor, 0.12, color=colors[name], label=None if place else name)
        axis.set_xticks(range(len(found)), [name.replace(" d", "\nd = ") for name in found], fontsize=8)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_title(f"{title}, in multiples of bare matrix products", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[2].set_yscale("log")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colors[name]) for name in libraries]
    axes[0].legend(handles, libraries, frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    rewrite(records.read(RESULTS))
