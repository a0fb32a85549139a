"""The training loop. `driver.py` runs epochs, `progress.py` decides when they end, `trainer.py` makes the compiled
functions, and `step.py` is the computation of an epoch.
"""
