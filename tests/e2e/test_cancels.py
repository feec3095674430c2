"""An operator cancels a deployment: the engine's work stops within two seconds, and nothing half done stays.

The lines trickle, as slow ones do, while the command is given: an engine that went on would be seen to.
"""

from __future__ import annotations

import pytest

from deploy.machine.polling import poll
from tests.e2e.narrow import BULK, LARGE, NARROW, STOPS_SECONDS, NarrowScene

pytestmark = pytest.mark.real


@pytest.mark.parametrize("range_id", NARROW)
def test_cancelling_a_pull_stops_the_engine_and_leaves_nothing(narrow: NarrowScene, range_id: str) -> None:
    """Its connection to the registry is closed in time, it keeps no part, and the slot is the next one's."""
    engine = narrow.system.ranges[range_id]
    name, other = f"e2e/{narrow.name}:1", f"e2e/{narrow.name}:other"
    narrow.make(name, "cancelled", bulk_bytes=BULK)
    narrow.make(other, f"next {narrow.name}")
    names, parts, line = engine.names(), narrow.parts(range_id), narrow.lines.pull
    passed = line.passed_bytes
    begun = narrow.under_way(range_id, name, line)
    narrow.cancel(begun)
    poll(lambda: not (line.held or narrow.parts(range_id) - parts), seconds=STOPS_SECONDS)
    assert (line.held, narrow.parts(range_id) - parts) == (0, set())
    at_end = line.passed_bytes
    assert at_end - passed < BULK
    narrow.lines.open()
    narrow.cancelled(begun)
    assert line.passed_bytes == at_end
    assert engine.names() == names
    assert narrow.deploy(range_id, other)[0].how == "pulled"
    narrow.cancelled(begun)


@pytest.mark.parametrize("range_id", NARROW)
def test_cancelling_a_load_stops_the_engine_and_ends_the_export(narrow: NarrowScene, range_id: str) -> None:
    """The archive's connection, the engine's load and the tar server's spool are gone in time; the slot is free."""
    engine = narrow.system.ranges[range_id]
    name, other = f"e2e/{narrow.name}:1", f"e2e/{narrow.name}:other"
    narrow.system.registry.stop()
    narrow.make(name, "cancelled", bulk_bytes=LARGE)
    narrow.make(other, f"next {narrow.name}")
    names, parts, line = engine.names(), narrow.parts(range_id), narrow.lines.tar
    spools = narrow.spools()
    begun = narrow.under_way(range_id, name, line)
    assert len(narrow.spools() - spools) == 1
    narrow.cancel(begun)
    poll(lambda: not (line.held or narrow.spools() - spools or narrow.parts(range_id) - parts), seconds=STOPS_SECONDS)
    assert (line.held, narrow.spools() - spools, narrow.parts(range_id) - parts) == (0, set(), set())
    narrow.lines.open()
    narrow.cancelled(begun)
    assert engine.names() == names
    assert narrow.deploy(range_id, other)[0].how == "loaded"
    narrow.cancelled(begun)


def test_cancelling_while_the_image_is_pushed_lets_the_push_end_and_asks_the_range_for_nothing(
    narrow: NarrowScene,
) -> None:
    """A push is everybody's: it goes on, and the registry has the whole image or none; the next one pulls that."""
    range_id, name = NARROW[0], f"e2e/{narrow.name}:1"
    image_id = narrow.make(name, "pushed", bulk_bytes=BULK)
    narrow.from_now()
    begun = narrow.under_way(range_id, name, narrow.lines.push)
    assert narrow.show(begun)["images"][0]["state"] == "pushing"
    narrow.cancel(begun)
    narrow.cancelled(begun)
    assert not narrow.registry_has(name)
    narrow.lines.open()
    narrow.pushed(name, image_id)
    assert narrow.deploy(range_id, name)[0].how == "pulled"
    assert narrow.read(range_id, name) == "pushed"
    assert narrow.asked(range_id, begun) == 0
    narrow.cancelled(begun)


def test_cancelling_what_is_queued_takes_it_out_of_the_queue(narrow: NarrowScene) -> None:
    """It never starts; the one under way and the one behind it do not notice."""
    at_work, queued, behind = (f"e2e/{narrow.name}:{part}" for part in ("work", "queued", "behind"))
    narrow.make(at_work, "work", bulk_bytes=BULK)
    narrow.make(queued, "queued")
    narrow.make(behind, "behind")
    first = narrow.under_way(NARROW[0], at_work, narrow.lines.pull)
    begun = narrow.begin(NARROW[0], queued)
    assert narrow.waits(begun)
    last = narrow.begin(NARROW[0], behind)
    assert narrow.waits(last)
    assert (narrow.place(begun), narrow.place(last)) == (1, 2)
    narrow.cancel(begun)
    narrow.cancelled(begun)
    assert (narrow.place(begun), narrow.place(last)) == (None, 1)
    narrow.lines.open()
    assert [narrow.ended(one).images[0].how for one in (first, last)] == ["pulled", "pulled"]
    assert narrow.asked(NARROW[0], begun) == 0
    assert not [name for name in narrow.system.ranges[NARROW[0]].names() if name.startswith(queued)]
