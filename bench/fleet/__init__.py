"""Bench case `fleet`: `python -m bench fleet --json`."""
