"""The bus on Redis: client, Lua scripts, preflight checks."""

from __future__ import annotations

import sys

# redis-py loads OpenTelemetry for metrics of its own if it can be imported: 3 MB in every process. Nobody asks it for
# those, so it is out of sight while redis-py is imported.
_HIDDEN = "opentelemetry" not in sys.modules
if _HIDDEN:
    sys.modules["opentelemetry"] = None  # type: ignore[assignment]
import redis.asyncio  # noqa: E402, F401

if _HIDDEN:
    del sys.modules["opentelemetry"]
