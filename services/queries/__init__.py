"""Queries for people, answered from records and streams (deployments, plans, images, ranges, verification)."""
