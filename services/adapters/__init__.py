"""Adapters to engines, the registry and the host's kernel.

Each has a fake in memory that passes the same conformance suite.
"""
