"""Bench case `bus`: `python -m bench bus --json`."""
