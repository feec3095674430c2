"""Typed records: what a key reads and writes, and what the type checker refuses."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from mypy import api

from events.bus import Outcome, RecordConflict, RecordWrite
from events.memory.bus import MemoryBus
from events.records import ABSENT, ANY, Key, Stored, UnreadableRecord, load_all, load_both, load_values


class Counted(msgspec.Struct):
    count: int


class Named(msgspec.Struct):
    name: str


COUNT, NAME = Key("t:count", Counted), Key("t:name", Named)


async def test_what_was_written_is_read_again_with_its_revision() -> None:
    """And what was read is what the next write expects."""
    bus = MemoryBus()
    await bus.commit(Outcome(records=(COUNT.write(Counted(1), expected=ABSENT),)))
    found = await COUNT.load(bus)
    assert found == Stored(Counted(1), 1)
    await bus.commit(Outcome(records=(COUNT.write(Counted(2), expected=found),)))
    with pytest.raises(RecordConflict):
        await bus.commit(Outcome(records=(COUNT.write(Counted(3), expected=found),)))
    await bus.commit(Outcome(records=(COUNT.write(Counted(4), expected=ANY),)))
    assert await load_values(bus, [COUNT, Key("t:none", Counted)]) == [Counted(4)]


async def test_a_record_that_is_not_there_reads_as_revision_zero() -> None:
    """So that a write which expects what was read is the first one, or a conflict."""
    bus = MemoryBus()
    found, other = await load_both(bus, COUNT, NAME)
    assert (found, other) == (Stored(None, 0), Stored(None, 0))
    assert COUNT.write(Counted(1), expected=found).expected == 0
    assert COUNT.delete(expected=found) == RecordWrite(COUNT.name, None, 0)
    assert await load_all(bus, list[Key[Counted]]()) == []


@pytest.mark.parametrize("content", [b"", b"{}", b'{"count": "1"}', b"\xff", b"[" * 2000])
async def test_a_record_of_another_kind_is_an_error_that_names_it(content: bytes) -> None:
    """Whatever bytes lie there."""
    bus = MemoryBus()
    await bus.commit(Outcome(records=(RecordWrite(COUNT.name, content),)))
    with pytest.raises(UnreadableRecord, match="the record t:count is no Counted"):
        await COUNT.load(bus)


_PROLOGUE = """
import msgspec
from events.bus import Delivery, NOTHING, Outcome
from events.messages import Failure, ImageFailed, ImageReady
from events.records import ANY, Key, Stored
from events.subscription import Handlers
class One(msgspec.Struct):
    n: int
class Two(msgspec.Struct):
    n: int
KEY = Key("one", One)
async def handle(delivery: Delivery[ImageReady | ImageFailed]) -> Outcome:
    return NOTHING
async def failed(delivery: Delivery[ImageFailed]) -> Outcome:
    return NOTHING
def key(delivery: Delivery[ImageReady]) -> str:
    return delivery.message.transfer_id
"""
_REFUSED = {
    "a value of another type": 'KEY.write(Two(1), expected=ANY)  # error: has incompatible type "Two"',
    "a forgotten revision": 'KEY.write(One(1))  # error: Missing named argument "expected"',
    "the revision of another record": "KEY.write(One(1), expected=Stored(Two(1), 1))  # error: incompatible type",
    "a handler of another message": "Handlers().on(ImageReady, failed, key=None, give_up=None)  # error: ",
    "a forgotten key": 'Handlers().on(ImageReady, handle, give_up=None)  # error: Missing named argument "key"',
    "a forgotten give-up": 'Handlers().on(ImageReady, handle, key=key)  # error: Missing named argument "give_up"',
    "the key of another message": "Handlers().on(ImageFailed, handle, key=key, give_up=None)  # error: ",
}


def test_mistakes_with_records_and_deliveries_do_not_pass_the_type_checker(tmp_path: Path) -> None:
    """Each line is refused for its own reason, and the right ones pass."""
    script = tmp_path / "seams.py"
    good = "KEY.write(One(1), expected=KEY.read(None))\nHandlers().on(ImageReady, handle, key=key, give_up=None)\n"
    script.write_text(_PROLOGUE + good + "\n".join(_REFUSED.values()) + "\n")
    said, _, _ = api.run([str(script), "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")])
    first = (_PROLOGUE + good).count("\n") + 1
    errors = dict[int, str]()
    for line in said.splitlines():
        _, place, kind, text = line.split(":", 3)
        if kind.strip() == "error":
            number = int(place)
            errors[number] = errors.get(number, "") + text
    assert list(errors) == list(range(first, first + len(_REFUSED))), said
    for line_number, (what, code) in enumerate(_REFUSED.items(), first):
        assert code.partition("# error: ")[2] in errors[line_number], (what, said)
