"""Bench case `faults`: `python -m bench faults --json`."""
