"""How outcomes and leases are spelled as arguments of the scripts. Mirrors the readers in `events/lua`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from events.bus import IndexWrite, Outcome, Post, RecordWrite
from events.codec import dedup_key, encode, encode_message
from events.lease import Flight, Holder, Lease
from events.redis_client import Argument

Words = list[Argument]


def milliseconds(seconds: float) -> int:
    """Never 0, which means 'none' to Redis."""
    return max(1, round(seconds * 1000))


def lease_words(lease: Lease) -> Words:
    """What the fence needs."""
    return [lease.stream, lease.holder.group, lease.entry_id, lease.holder.owner, lease.deliveries]


def flight_words(flight: Flight | None) -> Words:
    return [flight.home, flight.key] if flight else ["", ""]


def settle_words(lease: Lease, verdict: str, remember_ms: int) -> Words:
    """The head of an item of commit.lua that settles a lease."""
    return ["", *lease_words(lease), lease.identity, verdict, remember_ms, *flight_words(lease.flight)]


def commit_words() -> Words:
    """The head of an item of commit.lua without a lease; the token tells a repeat of it from a conflict."""
    return [secrets.token_hex(8)]


def outcome_words(outcome: Outcome, remember_ms: int, limit_bytes: int, letters: Sequence[Words] = ()) -> Words:
    """Posts, records and index of an item of commit.lua; `letters` are posts spelled already. Raises Unencodable."""
    words: Words = [len(outcome.posts) + len(letters)]
    for letter in letters:
        words += letter
    for post in outcome.posts:
        words += _post_words(post, remember_ms, limit_bytes)
    words.append(len(outcome.records))
    for record in outcome.records:
        words += _record_words(record)
    words.append(len(outcome.index))
    for entry in outcome.index:
        words += _index_words(entry)
    return words


def letter_words(stream: str, fields: Mapping[bytes, bytes]) -> Words:
    """A post that is no envelope: a dead letter. Never passed over."""
    return [stream, "", 1, 0, 0, *field_words(fields)]


def field_words(fields: Mapping[bytes, bytes]) -> Words:
    words: Words = [2 * len(fields)]
    for pair in fields.items():
        words += pair
    return words


def renewal_words(lease: Lease, news: Post | None, limit_bytes: int) -> Words:
    """One item of renew.lua."""
    words = [*lease_words(lease), *flight_words(lease.flight)]
    if news is None:
        return [*words, "", "", 0, 0]
    note = encode_message(news.envelope.message)
    fields = encode(news.envelope, limit_bytes=limit_bytes)
    return [*words, note, news.stream, news.keep or 0, *field_words(fields)]


def unpack(packed: bytes) -> list[bytes]:
    """The values that prelude.lua's `pack` put into one string."""
    lengths, _, _ = packed.partition(b";")
    end = len(lengths) + 1
    values = []
    for length in lengths.split(b","):
        start, end = end, end + int(length)
        values.append(packed[start:end])
    return values


def read_lease(holder: Holder, packed: bytes) -> Lease:
    """A lease as take.lua and recover.lua give it."""
    stream, entry_id, deliveries, failed, crashed, waited, *flat = unpack(packed)
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return Lease(
        stream=stream.decode(),
        entry_id=entry_id.decode(),
        holder=holder,
        deliveries=int(deliveries),
        failed=int(failed),
        crashed=int(crashed),
        waited=int(waited),
        fields=fields,
        flat=flat if 2 * len(fields) != len(flat) else (),
    )


def _post_words(post: Post, remember_ms: int, limit_bytes: int) -> Words:
    envelope = post.envelope
    due = 0 if post.due is None else max(1, round(post.due.timestamp() * 1000))
    identity = b"" if post.keep else dedup_key(envelope.source, envelope.id)
    fields = field_words(encode(envelope, limit_bytes=limit_bytes))
    return [post.stream, identity, remember_ms, due, post.keep or 0, *fields]


def _record_words(record: RecordWrite) -> Words:
    return [
        record.key,
        "delete" if record.value is None else "set",
        record.value or b"",
        "" if record.expected is None else record.expected,
        0 if record.expires_seconds is None else milliseconds(record.expires_seconds),
    ]


def _index_words(entry: IndexWrite) -> Words:
    return [entry.key, entry.member, "" if entry.score is None else repr(float(entry.score))]
