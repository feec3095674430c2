"""Bench case `simulate`: `python -m bench simulate --json`."""
