"""The machine: programs, Debian packages, a cache of downloads, a small base image."""
