"""Data on their way to a model: `read.py` is where rows come in, `standardize.py` where they leave for the device."""
