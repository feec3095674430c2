"""Codec of entries: an envelope as the plain fields that `redis-cli XRANGE` shows, and back.

The fields are CloudEvents attributes in a fixed order, so that a stream reads like a log:
`id type source subject time correlationid [causationid] [traceparent] [actor] data`. `data` is the message as JSON
without its type, which has a field of its own. A reader takes the fields in any order and ignores those it does not
know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec

from events.authority import Rules, rules_of
from events.envelope import Envelope
from events.malformed import MALFORMED
from events.messages import Message
from events.range_messages import OutOfBounds, bounded, size_limit

#: An entry larger than this (all names and values together) is neither published nor handled.
ENTRY_LIMIT_BYTES = 1_048_576
#: An entry of more fields is not handled: Lua hands a command some 8,000 values, so it could never be added again.
FIELDS_LIMIT = 1000
#: Attributes end up in keys and logs, so they are kept short (bytes of UTF-8). A subject may be a reference.
ATTRIBUTE_LIMIT_BYTES = 512
SUBJECT_LIMIT_BYTES = 4096
#: The code of a message on a stream where it may not be.
NOT_ALLOWED = "not_allowed"

#: More characters of an actor's name are not read.
ACTOR_LIMIT = 128

Fields = Mapping[bytes, bytes]

_TYPES: dict[str, type[Any]] = {str(cls.__struct_config__.tag): cls for cls in get_args(Message)}
_TAGS: dict[type[Any], str] = {cls: tag for tag, cls in _TYPES.items()}
_DECODERS = {tag: msgspec.json.Decoder(cls) for tag, cls in _TYPES.items()}
_PREFIXES = {cls: len(f'{{"type":"{tag}"') for tag, cls in _TYPES.items()}
_ENCODE = msgspec.json.Encoder().encode
_VERSION = re.compile(r"(?P<name>.+)\.v(?P<number>[0-9]{1,9})")
_NAMES = {tag.rpartition(".v")[0] for tag in _TYPES}
_BOUNDED = {
    b"id": (1, ATTRIBUTE_LIMIT_BYTES),
    b"source": (1, ATTRIBUTE_LIMIT_BYTES),
    b"type": (1, ATTRIBUTE_LIMIT_BYTES),
    b"time": (1, ATTRIBUTE_LIMIT_BYTES),
    b"subject": (0, SUBJECT_LIMIT_BYTES),
    b"correlationid": (0, ATTRIBUTE_LIMIT_BYTES),
    b"causationid": (0, ATTRIBUTE_LIMIT_BYTES),
    b"traceparent": (0, ATTRIBUTE_LIMIT_BYTES),
}
_NOT_EMPTY = (b"id", b"source", b"type", b"time")
_REQUIRED = (b"id", b"type", b"source", b"subject", b"time", b"data")


class Undecodable(Exception):
    """An entry that cannot be decoded. `code` is stable; the text says what is wrong with which field."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unencodable(ValueError):
    """An envelope that cannot be encoded: text that is not Unicode (a lone surrogate), or a field of another type."""


class TooLarge(Unencodable):
    """An envelope whose entry would exceed the limit."""


def wire_type(message: Message | type[Any]) -> str:
    """`image.built.v1` for an ImageBuilt or the class itself."""
    return _TAGS[message if isinstance(message, type) else type(message)]


def message_types() -> dict[str, type[Any]]:
    """Every wire type and its Struct."""
    return dict(_TYPES)


def encode_message(message: Message) -> bytes:
    """The JSON of a message without its type."""
    text = _ENCODE(message)
    rest = text[_PREFIXES[type(message)] :]
    return b"{" + rest[1:] if rest[:1] == b"," else b"{" + rest


def encode(envelope: Envelope, *, limit_bytes: int = ENTRY_LIMIT_BYTES) -> dict[bytes, bytes]:
    """The entry's fields, in the order in which they are written. Raises Unencodable, of which TooLarge is one kind."""
    try:
        fields = _fields(envelope)
    except (UnicodeEncodeError, AttributeError, TypeError, OverflowError) as error:
        raise Unencodable(f"a {type(envelope.message).__name__} cannot be encoded: {error}") from error
    size = entry_bytes(fields)
    if size > limit_bytes:
        raise TooLarge(
            f"{wire_type(envelope.message)} {envelope.id} makes an entry of {size} bytes, over {limit_bytes}"
        )
    problem = _out_of_bounds(fields, size)
    if problem is not None:
        raise TooLarge(problem)
    return fields


def _out_of_bounds(fields: Fields, size_bytes: int) -> str | None:
    """Which attribute is empty or too long, if one is. In a small entry no attribute can be too long."""
    if size_bytes <= ATTRIBUTE_LIMIT_BYTES and all(map(fields.get, _NOT_EMPTY)):
        return None
    for name, (least, most) in _BOUNDED.items():
        size = len(fields.get(name, b"?"))
        if not least <= size <= most:
            return f"{name.decode()} must have {least} to {most} bytes, has {size}"
    return None


def _fields(envelope: Envelope) -> dict[bytes, bytes]:
    fields = {
        b"id": envelope.id.encode(),
        b"type": _TAGS[type(envelope.message)].encode(),
        b"source": envelope.source.encode(),
        b"subject": envelope.subject.encode(),
        b"time": format_time(envelope.time).encode(),
        b"correlationid": envelope.correlation_id.encode(),
    }
    if envelope.causation_id:
        fields[b"causationid"] = envelope.causation_id.encode()
    if envelope.traceparent:
        fields[b"traceparent"] = envelope.traceparent.encode()
    if envelope.actor:
        fields[b"actor"] = envelope.actor.encode()
    fields[b"data"] = encode_message(envelope.message)
    return fields


def decode(fields: Fields, *, stream: str = "", limit_bytes: int = ENTRY_LIMIT_BYTES) -> Envelope:
    """The envelope in an entry's fields. Raises Undecodable.

    With the `stream` that it was read from, only what may be published there (`events.authority`) is decoded, and a
    range's message is checked against its bounds (`events.range_messages`).
    """
    size = entry_bytes(fields)
    if size > limit_bytes:
        raise Undecodable("too_large", f"the entry has {size} bytes, the limit is {limit_bytes}")
    if len(fields) > FIELDS_LIMIT:
        raise Undecodable("too_large", f"the entry has {len(fields)} fields, the limit is {FIELDS_LIMIT}")
    missing = [name.decode() for name in _REQUIRED if name not in fields]
    if missing:
        raise Undecodable("missing_field", f"the entry has no field {', '.join(missing)}")
    try:
        text = {name: value.decode() for name, value in fields.items() if name in _TEXT}
    except UnicodeDecodeError as error:
        raise Undecodable("not_utf8", f"a field is not UTF-8: {error}") from error
    problem = _out_of_bounds(fields, size)
    if problem is not None:
        raise Undecodable("bad_field", problem)
    rules = rules_of(stream)
    if rules.allowed is not None:
        _check_authority(text[b"type"], stream, rules, size)
    message = decode_message(text[b"type"], fields[b"data"])
    return Envelope(
        message=_bounded(message) if rules.hostile else message,
        source=text[b"source"],
        subject=text[b"subject"],
        id=text[b"id"],
        time=parse_time(text[b"time"]),
        correlation_id=text.get(b"correlationid") or text[b"id"],
        causation_id=text.get(b"causationid") or None,
        traceparent=text.get(b"traceparent") or None,
        actor=text.get(b"actor", "")[:ACTOR_LIMIT],
    )


def _check_authority(wire: str, stream: str, rules: Rules, size_bytes: int) -> None:
    """Check the type before the data is decoded. An unknown type is reported as unknown on every stream."""
    if wire not in _TYPES or rules.allowed is None:
        return
    if wire not in rules.allowed:
        raise Undecodable(NOT_ALLOWED, f"{wire} may not be published on {stream[:200]}")
    if rules.hostile and size_bytes > size_limit(_TYPES[wire]):
        raise Undecodable("too_large", f"a {wire} of a range has at most {size_limit(_TYPES[wire])} bytes")


def _bounded(message: Message) -> Message:
    try:
        return bounded(message)
    except OutOfBounds as problem:
        raise Undecodable("out_of_bounds", str(problem)) from problem


_TEXT = frozenset(
    (b"id", b"type", b"source", b"subject", b"time", b"correlationid", b"causationid", b"traceparent", b"actor"),
)


def decode_message(wire: str, data: bytes) -> Message:
    """The message of a wire type. Raises Undecodable with the code unknown_type, future_version or bad_data."""
    decoder = _DECODERS.get(wire)
    if decoder is None:
        match = _VERSION.fullmatch(wire)
        if match and match["name"] in _NAMES:
            raise Undecodable(
                "future_version", f"{wire[:200]!r} is a version that this program does not know: update it"
            )
        raise Undecodable("unknown_type", f"{wire[:200]!r} is no type of message known here")
    try:
        message: Message = decoder.decode(data)
    except MALFORMED as error:
        raise Undecodable("bad_data", f"data of {wire}: {error}") from error
    return message


def entry_bytes(fields: Fields) -> int:
    """The size of an entry in bytes: all names and values."""
    return sum(map(len, fields)) + sum(map(len, fields.values()))


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds: `2026-01-31T12:00:00.000001Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Parse an RFC 3339 time. A time without an offset from UTC is refused. Raises Undecodable."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Undecodable("bad_field", f"time {text[:100]!r} is not RFC 3339") from error
    if moment.tzinfo is None:
        raise Undecodable("bad_field", f"time {text[:100]!r} has no offset from UTC")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise Undecodable("bad_field", f"time {text[:100]!r} is out of range") from error


def dedup_key(source: str | bytes, event_id: str | bytes) -> bytes:
    """The deduplication key of an event: its `source` and `id` as one name.

    The length of `source` makes it unambiguous.
    """
    first = source.encode() if isinstance(source, str) else source
    second = event_id.encode() if isinstance(event_id, str) else event_id
    return b"%d/%b/%b" % (len(first), first, second)
