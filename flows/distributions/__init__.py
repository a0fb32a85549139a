"""Distributions: bases, mixtures, joins, flows. `flows/__init__.py` lists them."""
