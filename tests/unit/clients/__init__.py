"""The client for CYROID."""
