"""Demonstration of the whole life of an image, checked on real engines: `make demo`."""
