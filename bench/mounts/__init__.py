"""Bench case `mounts`: `python -m bench mounts --json`."""
