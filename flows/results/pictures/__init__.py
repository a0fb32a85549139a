"""Pictures of results: `style.py` says how they look, `columns.py` what a column is on an axis, the others draw."""
