"""Deployments as pure decisions: state, transitions, evaluation, admission, idempotency."""
