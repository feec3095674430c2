"""Settings of every test run: no event loop belongs to the main thread, and a slow machine fails no property.

Up to Python 3.13, asking for a loop when none was ever set makes one. pytest-asyncio asks before its first test, and
nobody would close what it got; with warnings as errors that fails whichever test runs then.
"""

import asyncio

from hypothesis import HealthCheck, settings

# How long an example takes says something about the machine, not about the property.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

asyncio.set_event_loop(None)
