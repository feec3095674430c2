"""Measurements, each a side-by-side comparison that can be repeated: `python -m bench CASE --json`."""
