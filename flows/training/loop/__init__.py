"""The training loop. `driver.py` runs epochs, `progress.py` decides when they end, `trainer.py` makes what is compiled, and
`step.py` is what an epoch computes.
"""
