"""Which messages may be published where: every pair of stream and message, wherever an entry is decoded."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections import Counter as Counts
from pathlib import Path

import pytest

from events.authority import ALLOWED, StreamKind, allowed_wires, kind_of, letters_of
from events.bus import NOTHING, Delivery, Outcome
from events.codec import Undecodable, decode, message_types
from events.dead_letters import dead_letters
from events.memory.bus import MemoryBus
from events.messages import DeploymentRequested
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.tailing import tailed
from events.worker import Worker
from events.worker.observer import Counter, Silent

STREAMS = Streams("test")
ENTRIES = {
    entry["type"]: {name.encode(): value.encode() for name, value in entry.items()}
    for entry in map(json.loads, Path(__file__).with_name("golden_entries.jsonl").read_text().splitlines())
}


class Counting(Silent):
    """How often each thing was counted; `all_refused` is set after a thousand refusals."""

    def __init__(self) -> None:
        self.counts = Counts[str]()
        self.all_refused = asyncio.Event()

    def count(self, group: str, counter: Counter, amount: int = 1) -> None:
        """Added up."""
        self.counts[counter] += amount
        if self.counts["refused"] == 1000:
            self.all_refused.set()


NAMES: dict[str, StreamKind] = {
    STREAMS.images: "images",
    STREAMS.deployments: "deployments",
    STREAMS.deployer: "deployer",
    STREAMS.progress: "progress",
    STREAMS.dead: "dead",
    STREAMS.inbox("r-1"): "inbox",
    STREAMS.outbox("r-1"): "outbox",
    STREAMS.range_progress("r-1"): "range_progress",
    STREAMS.range_dead("r-1"): "range_dead",
}


@pytest.mark.parametrize(("stream", "wire"), list(itertools.product(NAMES, message_types())))
def test_a_message_is_decoded_where_it_may_be_published_and_nowhere_else(stream: str, wire: str) -> None:
    """For every pair; and so is what somebody tails."""
    kind = kind_of(stream)
    assert kind == NAMES[stream]
    fields = ENTRIES[wire]
    if message_types()[wire] in ALLOWED[kind]:
        assert decode(fields, stream=stream).id == fields[b"id"].decode()
        assert tailed(stream, "1-0", fields).envelope is not None
    else:
        with pytest.raises(Undecodable) as refused:
            decode(fields, stream=stream)
        assert refused.value.code == "not_allowed"
        assert tailed(stream, "1-0", fields).envelope is None


def test_the_data_of_what_is_not_allowed_is_not_read() -> None:
    """It is refused by its type alone, whatever it holds."""
    fields = {**ENTRIES["deployment.requested.v1"], b"data": b"[" * 10_000}
    with pytest.raises(Undecodable, match="may not be published"):
        decode(fields, stream=STREAMS.outbox("r1"))


@pytest.mark.parametrize(
    "name",
    ["deployments", "images", "deployer", "x:deployments", "a:b", "x:range:9:inbox:deployments", "outbox:images"],
)
def test_a_range_gets_no_rights_from_what_it_calls_its_keys(name: str) -> None:
    """Whatever key it makes under its own name, commands are not read there."""
    allowed = allowed_wires(f"cyroid:range:7:{name}")
    assert allowed is not None
    assert not allowed & {"deployment.requested.v1", "image.built.v1", "deployment.advance.v1"}


def test_a_stream_that_is_none_of_ours_is_nobodys_business() -> None:
    """Other services may have streams of their own."""
    assert allowed_wires("jobs") is None
    assert allowed_wires("other:jobs") is None
    assert kind_of("{cyroid}:range:7:outbox") == "outbox"
    assert letters_of("{cyroid}:range:7:outbox") == Streams("{cyroid}").refused("7")
    assert letters_of("{cyroid}:range:7:inbox") is None


async def test_a_command_out_of_an_outbox_is_refused_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand of them fill neither the dead letters nor the log, and the handler never sees one."""
    bus, seen, counting, handled = MemoryBus(), list[str](), Counting(), asyncio.Event()

    async def handle(delivery: Delivery[DeploymentRequested]) -> Outcome:
        seen.append(delivery.stream)
        handled.set()
        return NOTHING

    outbox = STREAMS.outbox("evil")
    for number in range(1000):
        fields = {**ENTRIES["deployment.requested.v1"], b"id": b"id-%d" % number}
        bus._stream(outbox).add(fields)  # what the range adds itself
    await bus.publish(STREAMS.deployments, decode(ENTRIES["deployment.requested.v1"]))
    subscription = Subscription(
        group="deployer",
        streams=lambda: [STREAMS.deployments, outbox],
        handlers=Handlers().on(DeploymentRequested, handle, key=None, give_up=None),
        dead_stream=STREAMS.dead,
    )
    worker = Worker(bus, subscription, observer=counting)
    running = asyncio.create_task(worker.run())
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(600):
            await counting.all_refused.wait()
            await handled.wait()
        await worker.drain(1)
    await running
    assert seen == [STREAMS.deployments]
    assert await bus.lengths([STREAMS.dead]) == [0]
    letters = await dead_letters(bus, STREAMS.refused("evil"))
    assert len(letters) == 100
    assert {letter.reason for letter in letters} == {"not_allowed"}
    assert len([line for line in caplog.messages if "is refused (not_allowed)" in line]) == 1
