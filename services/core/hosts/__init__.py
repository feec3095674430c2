"""Hosts of an installation: their records, and what each one's engine holds."""
