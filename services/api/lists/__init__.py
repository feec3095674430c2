"""Reads: lists and details, answered from the read model. They call no registry and no engine (import contract)."""
