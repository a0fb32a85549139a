"""The training loop: `run.py` runs epochs, says what happened and goes back; `step.py` is what an epoch computes."""
