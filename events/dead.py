"""Dead letters: an entry that a group gave up on, with the reason and every byte it had.

A letter is plain fields as well: `reason` (a stable code), `message`, `stream`, `group`, `entry`, `failed`, `crashed`,
`time`, then the entry's own fields, each under its name behind `raw:`. An entry of very many fields, or with a name
that comes twice, has them packed (MessagePack: a map, or a list of names and values in turn) in the field `packed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from events.bus import BusRefused, Speaker
from events.codec import FIELDS_LIMIT, Fields, Undecodable, decode
from events.envelope import Envelope
from events.lease import Lease, Letter, identity_of

_RAW = b"raw:"
_PACKED = b"packed"
#: Lua hands no more values than this to one command; far above what an entry of ours has.
_MOST_FIELDS = 500


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One letter, read. `envelope` is None where the entry cannot be decoded; `flat` as in `events.lease.Lease`."""

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


def write_letter(lease: Lease, letter: Letter) -> dict[bytes, bytes]:
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
    if lease.flat:
        fields[_PACKED] = msgspec.msgpack.encode(lease.flat)
    elif len(lease.fields) > _MOST_FIELDS:
        fields[_PACKED] = msgspec.msgpack.encode(dict(lease.fields))
    else:
        for name, value in lease.fields.items():
            fields[_RAW + name] = value
    return fields


def read_letter(letter_id: str, fields: Mapping[bytes, bytes]) -> DeadLetter | None:
    """A letter of these fields; None for an entry that is none."""
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
    except (KeyError, ValueError, msgspec.DecodeError):
        return None


def check_fields(letter: DeadLetter) -> None:
    """Raises BusRefused for an entry that nobody could add again, nor read."""
    if max(len(letter.fields), len(letter.flat) // 2) > FIELDS_LIMIT:
        raise BusRefused(
            f"the entry of dead letter {letter.letter_id} has {len(letter.fields)} fields, over {FIELDS_LIMIT}:"
            " nobody would read it; look at it with `events dead show`, then drop it"
        )


async def dead_letters(bus: Speaker, dead_stream: str) -> list[DeadLetter]:
    """All letters of a dead-letter stream, oldest first."""
    letters = []
    async for entry in bus.tail([dead_stream], after="0", follow=False):
        letter = read_letter(
            entry.entry_id, {name.encode(errors="surrogateescape"): value for name, value in entry.fields.items()}
        )
        if letter is not None:
            letters.append(letter)
    return letters
