"""Pictures of results: `style.py` says how they look, `axes.py` what a column is on an axis, the others draw."""
