"""No entry stops a consumer: `decode` gives an envelope or says why not, and a worker ends every entry."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from events.bus import NOTHING, BusRefused, Delivery, Outcome, Permanent, Post, RecordConflict
from events.codec import Undecodable, decode, encode, message_types
from events.dead_letters import read_letter, write_letter
from events.envelope import Envelope
from events.lease import DeadLetterReason, Holder, Lease
from events.memory.bus import MemoryBus
from events.messages import Failure, PushRequested
from events.subscription import Handlers, Subscription
from events.worker.worker import Worker
from tests.simulation import FakedLoop

NAMES = st.sampled_from(
    [b"id", b"type", b"source", b"subject", b"time", b"correlationid", b"causationid", b"traceparent", b"data"]
)
TYPES = st.sampled_from([name.encode() for name in message_types()])
VALUES = st.one_of(
    st.binary(max_size=60),
    TYPES,
    st.just(b"2026-01-01T00:00:00Z"),
    st.just(b'{"reference":"a","image_id":"sha256:' + b"1" * 64 + b'"}'),
    st.text(max_size=40).map(lambda text: text.encode(errors="surrogatepass")),
)
ENTRIES = st.dictionaries(st.one_of(NAMES, st.binary(max_size=20)), VALUES, max_size=14)
GOOD = st.builds(
    lambda subject: encode(Envelope(message=PushRequested(reference="a"), source="fuzz", subject=subject)),
    st.sampled_from("ab"),
)


def read(fields: dict[bytes, bytes]) -> Envelope | str:
    try:
        return decode(fields)
    except Undecodable as error:
        return f"{error.code}: {error}"


@given(ENTRIES)
def test_any_entry_is_decoded_or_explained(fields: dict[bytes, bytes]) -> None:
    """Never another exception, never without a reason."""
    found = read(fields)
    assert isinstance(found, Envelope) or found.partition(": ")[2]


@given(ENTRIES, st.integers(0, 600))
def test_any_entry_survives_as_a_dead_letter(fields: dict[bytes, bytes], more: int) -> None:
    """Every byte of it comes back, however many fields it has."""
    whole = {**fields, **{b"field %d" % number: b"" for number in range(more)}}
    lease = Lease("s", "1-1", Holder("g", "w"), 1, whole)
    letter = read_letter("2-1", write_letter(lease, DeadLetterReason("dead", "code", "reason \udcff", "t")))
    assert letter is not None
    assert letter.fields == whole
    assert letter.identity == lease.identity


class Mistaken:
    """Handlers, keys and `give_up`s that fail in the ways there are, in turn."""

    def __init__(self, errors: list[BaseException | None]) -> None:
        self._errors = itertools.cycle(errors)

    def _err(self) -> None:
        error = next(self._errors)
        if error is not None:
            raise error

    async def handle(self, delivery: Delivery[Any]) -> Outcome:
        self._err()
        return NOTHING

    def key(self, delivery: Delivery[Any]) -> str:
        self._err()
        return delivery.envelope.subject

    def give_up(self, delivery: Delivery[Any], failure: Failure) -> Outcome:
        self._err()
        said, cause = PushRequested(reference=failure.message), delivery.envelope
        return Outcome(posts=(Post("told", cause.causes(said, source="w", subject=cause.subject)),))


ERRORS = st.lists(
    st.one_of(
        st.none(),
        st.builds(KeyError, st.text(max_size=3)),
        st.builds(Permanent, st.sampled_from(["no", "no \udcff"])),
        st.builds(BusRefused, st.just("too large")),
        st.builds(RecordConflict, st.just("changed")),
        st.builds(asyncio.CancelledError),
    ),
    min_size=1,
    max_size=7,
)


async def _settle_all(entries: list[dict[bytes, bytes]], mistaken: Mistaken) -> None:
    bus = MemoryBus()
    for fields in entries:
        bus._stream("s").add(fields)  # what a stranger adds with redis-cli
    handlers = Handlers()
    for kind in message_types().values():
        handlers.on(kind, mistaken.handle, key=mistaken.key, give_up=mistaken.give_up)
    worker = Worker(
        bus,
        Subscription(
            group="g",
            streams=lambda: ["s"],
            handlers=handlers,
            dead_stream="dead",
            attempts=2,
        ),
    )
    running = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(1000):
            while (status := (await bus.groups(["s"]))[:1]) == [] or status[0].pending or status[0].lag:
                assert not running.done()
                await asyncio.sleep(10)
        await worker.drain(1)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@settings(max_examples=40)
@given(st.lists(st.one_of(ENTRIES, GOOD), min_size=1, max_size=4), ERRORS)
def test_no_entry_stops_a_worker(entries: list[dict[bytes, bytes]], errors: list[BaseException | None]) -> None:
    """Whatever the bytes and whatever handler, key and `give_up` do: each entry ends, and the worker goes on."""
    loop = FakedLoop()
    try:
        loop.run_until_complete(_settle_all(entries, Mistaken([*errors, None])))  # what always conflicts waits for ever
    finally:
        loop.close()
