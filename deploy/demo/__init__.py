"""The whole way of an image, shown and checked on real engines: `make demo`."""
