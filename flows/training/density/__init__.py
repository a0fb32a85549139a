"""Fits to an unnormalised density: where they start, what they are refused, and what their figures say."""
