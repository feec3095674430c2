"""What counts as a sign of life, and what as getting further."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from events.memory.bus import MemoryBus
from events.messages import TransferProgress
from services.deployer.liveness import Liveness, TransferLiveness

START = datetime(2030, 1, 1, tzinfo=UTC)


class Ear:
    """Liveness with a clock that goes on by a second with each word."""

    def __init__(self) -> None:
        self.seconds = 0
        self.liveness = Liveness(bus=MemoryBus(), stream="progress", clock=lambda: self.at(self.seconds))

    def at(self, seconds: int) -> datetime:
        return START + timedelta(seconds=seconds)

    def hear(self, transfer_id: str = "d1.0.1", *, range_id: str = "r1", **said: Any) -> TransferLiveness:
        """What is known of the transfer after a word about it."""
        self.seconds += 1
        fields: dict[str, Any] = {"kind": "pull", "phase": "downloading", "reference": "app", **said}
        self.liveness.hear(TransferProgress(transfer_id=transfer_id, range_id=range_id, **fields))
        return self.liveness.transfer(range_id, transfer_id)

    def life(self, heard: int, advanced: int) -> TransferLiveness:
        return TransferLiveness(self.at(heard), self.at(advanced))


def test_what_was_never_heard_of_counts_from_the_start() -> None:
    """A replica that has just started gives everything one more period."""
    assert Ear().liveness.transfer("r1", "d1.0.1") == TransferLiveness(START, START)


def test_only_more_than_ever_before_is_getting_further() -> None:
    """The same word again, or less, is a sign of life alone; more bytes, more layers or a later phase are progress."""
    ear = Ear()
    assert ear.hear(done_bytes=5) == ear.life(1, 1)
    assert ear.hear(done_bytes=5) == ear.life(2, 1)
    assert ear.hear(done_bytes=4) == ear.life(3, 1)
    assert ear.hear(done_bytes=5) == ear.life(4, 1)
    assert ear.hear(done_bytes=5, layers_done=1) == ear.life(5, 5)
    assert ear.hear(done_bytes=6, layers_done=1) == ear.life(6, 6)
    assert ear.hear(phase="extracting", done_bytes=0, layers_done=1) == ear.life(7, 7)
    assert ear.hear(phase="extracting", done_bytes=1, layers_done=1) == ear.life(8, 8)


def test_going_back_and_forth_between_phases_is_not_getting_further() -> None:
    """A phase counts when it is reached for the first time, with whatever bytes."""
    ear = Ear()
    ear.hear(phase="extracting", done_bytes=3)
    for done_bytes in range(10):
        assert ear.hear(phase="downloading", done_bytes=10 + done_bytes).advanced_at == ear.at(1)
        assert ear.hear(phase="extracting", done_bytes=3).advanced_at == ear.at(1)


def test_a_load_comes_after_a_pull() -> None:
    """The archive's bytes count from the beginning; words of the pull that was given up do not."""
    ear = Ear()
    ear.hear(phase="extracting", done_bytes=900)
    assert ear.hear(kind="load", done_bytes=1) == ear.life(2, 2)
    assert ear.hear(phase="extracting", done_bytes=901) == ear.life(3, 2)


def test_what_the_engine_keeps_waiting_gets_on_with_what_it_waits_for() -> None:
    """As long as another transfer of that range gets further, and not by its own words."""
    ear = Ear()
    ear.hear("waiting.0.1", phase="waiting")
    ear.hear("d1.0.1", done_bytes=1)
    assert ear.hear("waiting.0.1", phase="waiting") == ear.life(3, 2)
    ear.hear("d2.0.1", range_id="r2", done_bytes=1)
    assert ear.hear("waiting.0.1", phase="waiting") == ear.life(5, 2)


@pytest.mark.parametrize("kind", ["pull", "load"])
def test_ranges_do_not_speak_of_each_others_transfers(kind: str) -> None:
    """Another range that claims to be further can neither keep a transfer alive nor make it look stalled."""
    ear = Ear()
    ear.hear(done_bytes=5)
    ear.hear(range_id="hostile", kind=kind, phase="extracting", done_bytes=2**62)
    assert ear.liveness.transfer("r1", "d1.0.1") == ear.life(1, 1)
    assert ear.hear(done_bytes=6) == ear.life(3, 3)


def test_pushes_are_known_by_their_image() -> None:
    """Whoever pushes it; and that anything is pushed at all is known too."""
    ear = Ear()
    assert (ear.liveness.push("app"), ear.liveness.any_push) == (None, None)
    ear.hear("push-1", kind="push", phase="sending")
    assert (ear.liveness.push("app"), ear.liveness.any_push) == (ear.at(1), ear.at(1))
