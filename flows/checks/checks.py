"""The result of `flows.check`: a verdict for each question, that prints as a table."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from flows.checks.verdicts import FAIL, Check

SHOWN = 8  # columns, whose CRPS is printed


class Checks(Mapping[str, Check]):
    """Verdicts by the names of checks, `checks["columns"].p`; prints as a table.

    Attributes:
        rows: the `RowReport` of `result.verify`, None without a result or where it was not asked for.
        figures: plain numbers and text, for JSON: "rows", "draws", "log_likelihood", "standard_error", "crps" by column,
            "level", "remarks", and "checks" by name.
        arrays: of NumPy, for pictures: "rows" and "draws", which stood beside each other, flat, of a conditional model
            (rows, 99, columns); "places", which rows these are; "ranks", of each number among its draws; "latents", the noise
            of rows; "log_p" of all rows. Those that were computed.
    """

    def __init__(self, checks: dict[str, Check], rows: Any, figures: dict[str, Any], arrays: dict[str, np.ndarray]):
        self._checks, self.rows, self.arrays = checks, rows, arrays
        self.figures = {**figures, "passed": self.passed, "checks": {name: each._asdict() for name, each in checks.items()}}

    def __getitem__(self, name: str) -> Check:
        return self._checks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._checks)

    def __len__(self) -> int:
        return len(self._checks)

    @property
    def passed(self) -> bool:
        """Tells whether nothing FAILs."""
        return not any(each.verdict == FAIL for each in self._checks.values())

    def __repr__(self) -> str:
        return "\n".join([*self._head(), "", *self._table()])

    def _head(self) -> list[str]:
        figures = self.figures
        lines = list(figures["remarks"])
        likelihood = f"{figures['without_density']:,} of them without a density"
        if figures["log_likelihood"] is not None:
            error = figures["standard_error"]
            spread = "" if error is None else f" +- {error:.3f}"
            likelihood = f"log-likelihood {figures['log_likelihood']:.3f}{spread} nats"
        lines.append(f"{figures['rows']:,} rows, {figures['draws']:,} draws, {likelihood}")
        crps = figures["crps"]
        if crps:
            known = {name: "unknown" if value is None else f"{value:.3g}" for name, value in list(crps.items())[:SHOWN]}
            shown = ", ".join(map(" ".join, known.items()))
            lines.append(f"CRPS {shown}{f' and {len(crps) - SHOWN} more' if len(crps) > SHOWN else ''}")
        return lines

    def _table(self) -> list[str]:
        cells = [("check", "verdict", "p", "size", "up to", "")]
        for each in self._checks.values():
            p = "" if each.p is None else "< 1e-4" if each.p < 1e-4 else f"{each.p:.2g}"
            size = "" if each.size is None else f"{each.size:.4f}"
            cells.append((each.name, each.verdict, p, size, f"{each.tolerance:g}" if size else "", each.detail))
        widths = [max(len(row[i]) for row in cells) for i in range(5)]
        right = (False, False, True, True, True)
        return [
            "  ".join([*(row[i].rjust(w) if right[i] else row[i].ljust(w) for i, w in enumerate(widths)), row[5]]).rstrip()
            for row in cells
        ]
