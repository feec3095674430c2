"""Ranges as values: records, abilities, drift, unreferenced images."""
