"""Ingest: build, import and promote make an image appear on the host engine; each announces it on the bus."""
