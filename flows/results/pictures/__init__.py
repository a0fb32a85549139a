"""Pictures of results: `axes.py` says how they look and what a column is on an axis, `comparison.py` draws."""
