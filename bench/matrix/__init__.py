"""Bench case `matrix`: `python -m bench matrix --json`."""
