"""Bench case `killall`: `python -m bench killall --json`."""
