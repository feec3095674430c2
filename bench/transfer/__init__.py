"""Bench case `transfer`: `python -m bench transfer --json`."""
