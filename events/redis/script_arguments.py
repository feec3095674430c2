"""Encoding of outcomes and leases as script arguments. Mirrors the readers in `events/redis/lua`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from events.bus import IndexWrite, Outcome, Post, RecordWrite
from events.codec import dedup_key, encode, encode_message
from events.lease import Holder, Lease, SingleFlightLock
from events.redis.client import Argument

Words = list[Argument]


def milliseconds(seconds: float) -> int:
    """Seconds as whole milliseconds, at least 1: 0 means 'none' to Redis."""
    return max(1, round(seconds * 1000))


def lease_arguments(lease: Lease) -> Words:
    """The arguments by which a script checks a lease (the fencing token)."""
    return [lease.stream, lease.holder.group, lease.entry_id, lease.holder.owner, lease.deliveries]


def lock_arguments(single_flight: SingleFlightLock | None) -> Words:
    """The arguments of a single-flight lock."""
    return [single_flight.home, single_flight.key] if single_flight else ["", ""]


def settle_arguments(lease: Lease, verdict: str, remember_ms: int) -> Words:
    """The head of an item of commit.lua that settles a lease."""
    return ["", *lease_arguments(lease), lease.identity, verdict, remember_ms, *lock_arguments(lease.single_flight)]


def commit_arguments() -> Words:
    """The head of an item of commit.lua without a lease; the token tells a repeat of it from a conflict."""
    return [secrets.token_hex(8)]


def outcome_arguments(outcome: Outcome, remember_ms: int, limit_bytes: int, letters: Sequence[Words] = ()) -> Words:
    """Posts, records and index of an item of commit.lua; `letters` are posts spelled already. Raises Unencodable."""
    words: Words = [len(outcome.posts) + len(letters)]
    for letter in letters:
        words += letter
    for post in outcome.posts:
        words += _post_arguments(post, remember_ms, limit_bytes)
    words.append(len(outcome.records))
    for record in outcome.records:
        words += _record_arguments(record)
    words.append(len(outcome.index))
    for entry in outcome.index:
        words += _index_arguments(entry)
    return words


def letter_arguments(stream: str, fields: Mapping[bytes, bytes], keep: int | None = None) -> Words:
    """A dead letter as a post. Never skipped as a duplicate."""
    return [stream, "", 1, 0, keep or 0, *field_arguments(fields)]


def field_arguments(fields: Mapping[bytes, bytes]) -> Words:
    """The fields of an entry as arguments."""
    words: Words = [2 * len(fields)]
    for pair in fields.items():
        words += pair
    return words


def renewal_arguments(lease: Lease, news: Post | None, limit_bytes: int) -> Words:
    """One item of renew.lua."""
    words = [*lease_arguments(lease), *lock_arguments(lease.single_flight)]
    if news is None:
        return [*words, "", "", 0, 0]
    note = encode_message(news.envelope.message)
    fields = encode(news.envelope, limit_bytes=limit_bytes)
    return [*words, note, news.stream, news.keep or 0, *field_arguments(fields)]


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


def _post_arguments(post: Post, remember_ms: int, limit_bytes: int) -> Words:
    envelope = post.envelope
    due = 0 if post.due is None else max(1, round(post.due.timestamp() * 1000))
    identity = b"" if post.keep else dedup_key(envelope.source, envelope.id)
    fields = field_arguments(encode(envelope, limit_bytes=limit_bytes))
    return [post.stream, identity, remember_ms, due, post.keep or 0, *fields]


def _record_arguments(record: RecordWrite) -> Words:
    return [
        record.key,
        "delete" if record.value is None else "set",
        record.value or b"",
        "" if record.expected is None else record.expected,
        0 if record.expires_seconds is None else milliseconds(record.expires_seconds),
    ]


def _index_arguments(entry: IndexWrite) -> Words:
    return [entry.key, entry.member, "" if entry.score is None else repr(float(entry.score))]
