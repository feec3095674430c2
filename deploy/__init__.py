"""Deployment: container images, configuration, and the laboratory that runs everything on one machine."""
