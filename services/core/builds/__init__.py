"""Builds: what may be asked of one, what a Dockerfile needs, and BuildKit's progress as a log."""
