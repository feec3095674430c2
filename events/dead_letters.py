"""Dead letters: entries that a group gave up on, each with the reason and all its bytes.

A letter is plain fields as well: `reason` (a stable code), `message`, `stream`, `group`, `entry`, `failed`, `crashed`,
`time`, then the entry's own fields, each under its name behind `raw:`. An entry of very many fields, or with a name
that comes twice, has them packed (MessagePack: a map, or a list of names and values in turn) in the field `packed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from events.bus import BusClient, BusRefused
from events.codec import FIELDS_LIMIT, Fields, Undecodable, decode, entry_bytes
from events.envelope import Envelope
from events.lease import DeadLetterReason, Lease, identity_of
from events.malformed import MALFORMED

_RAW = b"raw:"
_PACKED = b"packed"
#: Of an entry that is too large to be kept whole in a capped stream: the beginning of its first fields. Such a letter
#: can be read and dropped, and not be sent again.
_CUT = b"cut:"
_KEPT_BYTES = 16 * 1024
_KEPT_FIELDS, _KEPT_NAME, _KEPT_VALUE = 10, 64, 512
#: Lua hands no more values than this to one command; far above what an entry of ours has.
_MOST_FIELDS = 500


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A decoded dead letter.

    `envelope` is None where the entry cannot be decoded; `flat` as in `events.lease.Lease`.
    """

    letter_id: str
    reason: str
    message: str
    stream: str
    group: str
    entry_id: str
    failed: int
    crashed: int
    time: str
    fields: Fields = field(repr=False)
    flat: Sequence[bytes] = field(default=(), repr=False)

    @property
    def identity(self) -> bytes:
        return identity_of(self.entry_id, self.fields)

    @property
    def envelope(self) -> Envelope | None:
        try:
            return decode(self.fields)
        except Undecodable:
            return None


def write_letter(lease: Lease, letter: DeadLetterReason) -> dict[bytes, bytes]:
    """The fields of a dead letter."""
    fields = {
        b"reason": letter.code.encode(errors="replace"),
        b"message": letter.reason.encode(errors="replace"),
        b"stream": lease.stream.encode(),
        b"group": lease.holder.group.encode(),
        b"entry": lease.entry_id.encode(),
        b"failed": b"%d" % lease.failed,
        b"crashed": b"%d" % lease.crashed,
        b"time": letter.time.encode(),
    }
    if letter.keep is not None and entry_bytes(lease.fields) > _KEPT_BYTES:
        for name, value in list(lease.fields.items())[:_KEPT_FIELDS]:
            fields[_CUT + name[:_KEPT_NAME]] = value[:_KEPT_VALUE]
    elif lease.flat:
        fields[_PACKED] = msgspec.msgpack.encode(lease.flat)
    elif len(lease.fields) > _MOST_FIELDS:
        fields[_PACKED] = msgspec.msgpack.encode(dict(lease.fields))
    else:
        for name, value in lease.fields.items():
            fields[_RAW + name] = value
    return fields


def read_letter(letter_id: str, fields: Mapping[bytes, bytes]) -> DeadLetter | None:
    """The dead letter in these fields; None for an entry that is not a dead letter."""
    try:
        text = {name: fields[name].decode(errors="replace") for name in (b"reason", b"message", b"time")}
        flat: Sequence[bytes] = ()
        if _PACKED in fields:
            packed = msgspec.msgpack.decode(fields[_PACKED], type=dict[bytes, bytes] | list[bytes])
            flat = packed if isinstance(packed, list) else ()
            raw = packed if isinstance(packed, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
        else:
            raw = {name.removeprefix(_RAW): value for name, value in fields.items() if name.startswith(_RAW)}
        return DeadLetter(
            letter_id=letter_id,
            reason=text[b"reason"],
            message=text[b"message"],
            stream=fields[b"stream"].decode(),
            group=fields[b"group"].decode(),
            entry_id=fields[b"entry"].decode(),
            failed=int(fields[b"failed"]),
            crashed=int(fields[b"crashed"]),
            time=text[b"time"],
            fields=raw,
            flat=flat,
        )
    except (KeyError, ValueError, *MALFORMED):
        return None


def check_fields(letter: DeadLetter) -> None:
    """Check that an entry can be added and read again. Raises BusRefused."""
    if max(len(letter.fields), len(letter.flat) // 2) > FIELDS_LIMIT:
        raise BusRefused(
            f"the entry of dead letter {letter.letter_id} has {len(letter.fields)} fields, over {FIELDS_LIMIT}:"
            " nobody would read it; look at it with `events dead show`, then drop it"
        )


async def dead_letters(bus: BusClient, dead_stream: str) -> list[DeadLetter]:
    """All letters of a dead-letter stream, oldest first."""
    letters = []
    async for entry in bus.tail([dead_stream], after="0", follow=False):
        letter = read_letter(
            entry.entry_id, {name.encode(errors="surrogateescape"): value for name, value in entry.fields.items()}
        )
        if letter is not None:
            letters.append(letter)
    return letters
