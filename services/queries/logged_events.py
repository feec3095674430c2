"""Events as the event log and live events tell them: one shape for messages, dead letters and unreadable entries."""

from __future__ import annotations

import msgspec

from events.messages import ImagePushed, RetentionPlanned
from services.queries.events import DeadLetterEvent, EntryView, EventView

_NOTHING = msgspec.Raw(b"null")


class LoggedEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of a stream. `type` is the message's, `dead_letter`, or `unreadable`; `data` is the message.

    Of a dead letter `reason`, `message`, `group` and `of` (stream and entry) say what was given up, by whom and why.
    """

    stream: str
    entry: str
    type: str
    time: str
    data: msgspec.Raw
    id: str = ""
    source: str = ""
    subject: str = ""
    actor: str = ""
    correlationid: str = ""
    causationid: str = ""
    reason: str = ""
    message: str = ""
    group: str = ""
    of: str = ""


def logged(view: EntryView) -> LoggedEvent:
    """An entry without the long lists that a detail has."""
    if isinstance(view, EventView):
        data = view.data
        if isinstance(data, ImagePushed):
            data = msgspec.structs.replace(data, layers=())
        elif isinstance(data, RetentionPlanned):
            data = msgspec.structs.replace(data, verdicts=())
        return LoggedEvent(
            stream=view.stream,
            entry=view.entry,
            type=view.type,
            time=view.time.isoformat(),
            id=view.id,
            source=view.source,
            subject=view.subject,
            actor=view.actor,
            correlationid=view.correlationid,
            causationid=view.causationid or "",
            data=msgspec.Raw(msgspec.json.encode(data)),
        )
    if isinstance(view, DeadLetterEvent):
        return LoggedEvent(
            stream=view.stream,
            entry=view.entry,
            type="dead_letter",
            data=_NOTHING,
            time=view.time,
            id=view.letter,
            correlationid=view.correlationid or "",
            reason=view.reason[:500],
            message=view.message[:500],
            group=view.group,
            of=f"{view.of.stream} {view.of.entry}",
        )
    return LoggedEvent(
        stream=view.stream,
        entry=view.entry,
        type="unreadable",
        data=_NOTHING,
        time="",
        message=(view.error or "")[:500],
    )
