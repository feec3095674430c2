"""Deterministic simulation of an installation: cluster, processes, fault injection, nemesis, workload, checker."""
