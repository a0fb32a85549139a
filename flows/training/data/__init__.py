"""Data on their way to a model: `read.py` reads them, `facts.py` checks them, and `prepare.py` prepares them for training."""
