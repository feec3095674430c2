"""Entries: an envelope as the plain fields that `redis-cli XRANGE` shows, and back.

The fields are CloudEvents attributes in a fixed order, so that a stream reads like a log:
`id type source subject time correlationid [causationid] [traceparent] data`. `data` is the message as JSON without its
type, which has a field of its own. A reader takes the fields in any order and ignores those it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec

from events.envelope import Envelope
from events.messages import Message

#: An entry larger than this (all names and values together) is neither published nor handled.
ENTRY_LIMIT_BYTES = 1_048_576
#: An entry of more fields is not handled: Lua hands a command some 8,000 values, so it could never be added again.
FIELDS_LIMIT = 1000
#: Attributes that end up in keys and logs are kept short: `id` and `source` (bytes of UTF-8).
ATTRIBUTE_LIMIT_BYTES = 512

Fields = Mapping[bytes, bytes]

_TYPES: dict[str, type[Any]] = {str(cls.__struct_config__.tag): cls for cls in get_args(Message)}
_TAGS: dict[type[Any], str] = {cls: tag for tag, cls in _TYPES.items()}
_DECODERS = {tag: msgspec.json.Decoder(cls) for tag, cls in _TYPES.items()}
_PREFIXES = {cls: len(f'{{"type":"{tag}"') for tag, cls in _TYPES.items()}
_ENCODE = msgspec.json.Encoder().encode
_VERSION = re.compile(r"(?P<name>.+)\.v(?P<number>[0-9]{1,9})")
_NAMES = {tag.rpartition(".v")[0] for tag in _TYPES}
_REQUIRED = (b"id", b"type", b"source", b"subject", b"time", b"data")


class Undecodable(Exception):
    """An entry that is no message of ours. `code` is stable, the text says what is wrong with which field."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unencodable(ValueError):
    """An envelope that makes no entry: text that is no Unicode (a lone surrogate), a field of another type."""


class TooLarge(Unencodable):
    """An envelope that would make an entry over the limit."""


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
    """The entry's fields in the order they are read. Raises Unencodable, TooLarge among them."""
    try:
        fields = _fields(envelope)
    except (UnicodeEncodeError, AttributeError, TypeError) as error:
        raise Unencodable(f"a {type(envelope.message).__name__} cannot be encoded: {error}") from error
    size = entry_bytes(fields)
    if size > limit_bytes:
        raise TooLarge(
            f"{wire_type(envelope.message)} {envelope.id} makes an entry of {size} bytes, over {limit_bytes}"
        )
    for name in (b"id", b"source"):
        if not 0 < len(fields[name]) <= ATTRIBUTE_LIMIT_BYTES:
            raise TooLarge(f"{name.decode()} must have 1 to {ATTRIBUTE_LIMIT_BYTES} bytes, has {len(fields[name])}")
    return fields


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
    fields[b"data"] = encode_message(envelope.message)
    return fields


def decode(fields: Fields, *, limit_bytes: int = ENTRY_LIMIT_BYTES) -> Envelope:
    """The envelope in an entry's fields. Raises Undecodable."""
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
    for name in (b"id", b"source"):
        if not 0 < len(fields[name]) <= ATTRIBUTE_LIMIT_BYTES:
            raise Undecodable("bad_field", f"{name.decode()} must have 1 to {ATTRIBUTE_LIMIT_BYTES} bytes")
    return Envelope(
        message=decode_message(text[b"type"], fields[b"data"]),
        source=text[b"source"],
        subject=text[b"subject"],
        id=text[b"id"],
        time=parse_time(text[b"time"]),
        correlation_id=text.get(b"correlationid") or text[b"id"],
        causation_id=text.get(b"causationid") or None,
        traceparent=text.get(b"traceparent") or None,
    )


_TEXT = frozenset(
    (b"id", b"type", b"source", b"subject", b"time", b"correlationid", b"causationid", b"traceparent"),
)


def decode_message(wire: str, data: bytes) -> Message:
    """The message of a wire type. Raises Undecodable: unknown_type, future_version or bad_data."""
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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable("bad_data", f"data of {wire}: {error}") from error
    return message


def entry_bytes(fields: Fields) -> int:
    """What an entry weighs: all names and values."""
    return sum(map(len, fields)) + sum(map(len, fields.values()))


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds: `2026-01-31T12:00:00.000001Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """RFC 3339; a time without an offset is not one. Raises Undecodable."""
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
    """What makes an event itself: `source` and `id` as one name; the length of `source` keeps it unambiguous."""
    first = source.encode() if isinstance(source, str) else source
    second = event_id.encode() if isinstance(event_id, str) else event_id
    return b"%d/%b/%b" % (len(first), first, second)
