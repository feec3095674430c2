"""Bench case `collect`: `python -m bench collect --json`."""
