"""A synthesiser of tables at its defaults, in a process of its own: `synthesizer.py METHOD FOLDER DRAWS SEED`.

METHOD is TVAE or CTGAN, of ctgan, or copula, the Gaussian one of copulas, which chooses a distribution for each column. FOLDER
has rows.csv, and discrete.json with the names of the columns that hold categories; draws.csv and seconds.json are written
beside them. The copula knows numbers alone: it sees the places of categories in alphabetical order, and what it draws is
rounded to the nearest place. One thread of the CPU; the seconds are those of the CPU.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

method, folder, count, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
warnings.simplefilter("ignore")
rows = pd.read_csv(folder / "rows.csv")
discrete = json.loads((folder / "discrete.json").read_text())
np.random.seed(seed)
start = time.process_time()
if method == "copula":
    from copulas.multivariate import GaussianMultivariate

    names = {column: sorted(rows[column].unique()) for column in discrete}
    model = GaussianMultivariate(random_state=seed)
    model.fit(rows.assign(**{column: rows[column].map(known.index) for column, known in names.items()}))
else:
    import ctgan
    import torch

    torch.set_num_threads(1)
    model = getattr(ctgan, method)(enable_gpu=False)
    model.set_random_state(seed)
    model.fit(rows, discrete)
fitted = time.process_time()
draws = model.sample(count)
drawn = time.process_time()
if method == "copula":
    for column, known in names.items():
        places = draws[column].round().clip(0, len(known) - 1).astype(int)
        draws[column] = [known[place] for place in places]
draws[rows.columns].to_csv(folder / "draws.csv", index=False)
(folder / "seconds.json").write_text(json.dumps({"fit": fitted - start, "draw": drawn - fitted}))
