"""Data on their way to a model: `read.py`, then `facts.py`, which checks them, then `prepare.py`, after which they train."""
