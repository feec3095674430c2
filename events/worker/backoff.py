"""Backoff between attempts: exponential, with jitter, bounded."""

from __future__ import annotations

import random


def backoff(attempt: int, *, base_seconds: float, limit_seconds: float) -> float:
    """Seconds before try `attempt` + 1: half fixed and half random, so that retries spread."""
    ceiling = min(limit_seconds, base_seconds * 2.0 ** min(max(attempt - 1, 0), 60))
    return ceiling * (0.5 + random.random() / 2)
