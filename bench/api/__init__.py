"""Measurements of the HTTP API: lists and live events."""
