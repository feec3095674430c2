"""Bench case `caps`: `python -m bench caps --json`."""
