"""harmonic's learned harmonic mean of draws (chains, draws, d) and their log-density in a file: half of the chains train a
`RealNVPModel` for 20 epochs, the others give the evidence. Prints JSON: log Z, its error, and seconds of a core."""

import json
import sys
import time

import harmonic
import numpy as np

began = time.process_time()
with np.load(sys.argv[1]) as found:
    x, log_p = found["x"], found["log_p"]
chains = harmonic.Chains(x.shape[-1])
chains.add_chains_3d(x, log_p)
train, rest = harmonic.utils.split_data(chains, training_proportion=0.5)
model = harmonic.model.RealNVPModel(x.shape[-1], standardize=True, temperature=0.8)
model.fit(train.samples, epochs=20, verbose=False)
evidence = harmonic.Evidence(rest.nchains, model)
evidence.add_chains(rest)
log_z, low, high = -evidence.ln_evidence_inv, *evidence.compute_ln_inv_evidence_errors()
answer = {"log Z": float(log_z), "error": float((high - low) / 2), "seconds": time.process_time() - began}
print(json.dumps(answer))
