"""Structured logs: one line per event, JSON for machines, colour for a terminal, always to stderr.

`bind(correlation_id=…)` holds for the task it is called in and the tasks that task starts, so that every line written
while an entry is handled can be found again by the id of the request that caused it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO, cast

import orjson

from events.envelope import Envelope

# structlog draws tracebacks with rich if it can be imported, and so loads it: 5 MB in every process. Ours are text by
# then, so it is out of sight while structlog is imported.
_HIDDEN = "rich" not in sys.modules
if _HIDDEN:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402
from structlog.types import EventDict, Processor, WrappedLogger  # noqa: E402

if _HIDDEN:
    del sys.modules["rich"]

#: What one value of a log line may be, and the text of a traceback.
_VALUE_CHARACTERS = 2000
_TRACE_CHARACTERS = 20_000
Logger = structlog.stdlib.BoundLogger
LogFormat = Literal["json", "console", "auto"]


def _render_json(_logger: WrappedLogger, _method: str, entry: EventDict) -> str:
    ordered = {name: entry.pop(name, None) for name in ("timestamp", "level", "event")}
    line = {**ordered, **entry}
    try:
        return orjson.dumps(line, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # text that is no Unicode (a file's name), a number above 64 bits: told all the same
        return json.dumps({str(name): value for name, value in line.items()}, default=repr, skipkeys=True)


def _cut(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Cut a long value: it may come from a range or an engine, and must not fill the log."""
    for name, value in entry.items():
        limit = _TRACE_CHARACTERS if name == "exception" else _VALUE_CHARACTERS
        if isinstance(value, str) and len(value) > limit:
            entry[name] = f"{value[:limit]}… ({len(value)} characters)"
    return entry


def set_up(*, level: str = "info", log_format: LogFormat = "auto", stream: TextIO | None = None) -> None:
    """Send every log line, also the libraries' own, to `stream` (stderr). May be called again."""
    out = stream or sys.stderr
    as_console = log_format == "console" or (log_format == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=not as_console),
        structlog.processors.format_exc_info,
        _cut,
    ]
    console: list[Processor] = [structlog.dev.ConsoleRenderer(colors=out.isatty() and "NO_COLOR" not in os.environ)]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *(console if as_console else [_render_json]),
        ],
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(**context: Any) -> Logger:
    """A logger whose lines all carry `context`, for instance `role="deployer"`."""
    return cast(Logger, structlog.get_logger(**context))


@contextmanager
def bind(**context: Any) -> Iterator[None]:
    """Every line written inside carries `context` as well."""
    with structlog.contextvars.bound_contextvars(**context):
        yield


@contextmanager
def about(envelope: Envelope) -> Iterator[None]:
    """Inside, every log line carries the ids of the entry being handled."""
    with bind(correlation_id=envelope.correlation_id, entry=envelope.id):
        yield
