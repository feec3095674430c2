"""Tests that write tens of gigabytes: `make test-large`."""
