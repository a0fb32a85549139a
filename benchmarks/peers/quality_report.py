"""SDMetrics' QualityReport of tables in a file: `quality_report.py FILE.npz`, whose arrays are "SEED rows", "SEED wrong" and
"SEED right". By seed and kind of draws, FILE.json has the score of all, of Column Shapes, and of Column Pair Trends; None
where the report has none."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sdmetrics.reports import QualityReport

warnings.simplefilter("ignore")
file, found = Path(sys.argv[1]), {}
with np.load(file) as given:
    tables = {name: pd.DataFrame(given[name]).rename(columns="column {}".format) for name in given.files}
for name, draws in tables.items():
    seed, kind = name.split()
    if kind != "rows":
        metadata = {"tables": {"table": {"columns": {column: {"sdtype": "numerical"} for column in draws}}}}
        report = QualityReport()
        report.generate({"table": tables[f"{seed} rows"]}, {"table": draws}, metadata, verbose=False)
        properties = report.get_properties().set_index("Property")["Score"]
        scores = [report.get_score(), properties["Column Shapes"], properties["Column Pair Trends"]]
        found.setdefault(seed, {})[kind] = [None if np.isnan(each) else float(each) for each in scores]
file.with_suffix(".json").write_text(json.dumps(found))
