"""The four claims of the first page, each a card with its figures, a chart where there is one, and a link to its evidence."""

import runpy
from pathlib import Path

FOLDER = Path(__file__).parent
CHARTS = {"Fast": "first page", "Good without options": "verdicts"}
LINKS = {"benchmarks": "Benchmark", "guide": "Saving"}  # by the folder of the page


def claims():
    charts = runpy.run_path(str(FOLDER / "charts.py"))["charts"]
    cards = []
    for each in runpy.run_path(str(FOLDER / "measured.py"))["claims"]():
        chart = charts(CHARTS[each.title]) if each.title in CHARTS else ""
        link = LINKS[each.page.split("/")[0]]
        cards.append(f"````{{grid-item-card}}\n**{each.title}.** {each.text} [{link}]({each.page})\n\n{chart}\n````")
    return "\n".join(cards)
