"""The training loop: `run.py` runs epochs, each of which `step.py` makes one compiled call, and says what happened."""
