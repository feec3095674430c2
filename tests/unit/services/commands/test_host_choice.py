"""Which host a command is for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from events.bus import IndexWrite, Outcome
from events.messages import FetchRequested, ImageFetched, PushRequested
from events.records import ANY, Stored
from services.adapters.memory_archives import tar_of
from services.commands.request_reply import answer
from services.commands.requests import ask_for_push
from services.core.hosts.held_images import HeldImage, HeldImages, HeldKeys
from services.core.hosts.hosts import HostKeys, HostRecord
from services.core.images.prompts import Prompt, asked, prompt_id
from services.errors import EngineUnavailable, NotFound
from tests.unit.services.twins import STREAMS, Cluster

NOW = datetime(2030, 1, 1, tzinfo=UTC)
WEB = "docker.io/library/web:1"
KEYS, HELD = HostKeys(STREAMS.prefix), HeldKeys(STREAMS.prefix)
IMAGE_ID = f"sha256:{'5' * 64}"


@pytest.fixture
def cluster() -> Cluster:
    """Fakes of one host."""
    return Cluster()


async def _host(cluster: Cluster, host: str, *, alive: bool = True, holds: HeldImages | None = None) -> None:
    record = HostRecord(host=host, machine=host, since=NOW, seen_at=NOW)
    await cluster.bus.commit(
        Outcome(
            records=(KEYS.record(host).write(record, expected=ANY),),
            index=(IndexWrite(KEYS.all, host, 1.0),),
        )
    )
    if alive:
        await cluster.bus.beat(STREAMS.host_alive(host), record.encode(), 60.0)
    if holds is not None:
        await cluster.bus.commit(HELD.written(Stored(None, 0), holds, host, NOW))


def _on(*hosts: str) -> HeldImages:
    held = HeldImage(local_id="l", image_id=IMAGE_ID, diff_ids=(), since=NOW)
    return HeldImages(reference=WEB, hosts=dict.fromkeys(hosts, held))


async def _push(cluster: Cluster, host: str | None = None) -> PushRequested:
    await ask_for_push("web:1", engine=cluster.engine, bus=cluster.bus, streams=STREAMS, source="t", host=host)
    message = (await cluster.said())[-1]
    assert isinstance(message, PushRequested)
    return message


async def test_what_only_another_host_has_is_pushed_from_there(cluster: Cluster) -> None:
    """Also while this host's engine is away; of several holders one that is there does it."""
    await _host(cluster, "a", alive=False)
    await _host(cluster, "b", holds=_on("a", "b"))
    for is_away in (False, True):
        cluster.engine.away = is_away
        request = await _push(cluster)
        assert (request.host, request.image_id, request.why) == ("b", IMAGE_ID, "manual")


async def test_what_this_host_has_needs_no_other(cluster: Cluster) -> None:
    """The request names its content, and no host."""
    await _host(cluster, "b", holds=_on("b"))
    image = cluster.engine.add_image("web:1", [tar_of({"web": b"1"})])
    request = await _push(cluster)
    assert (request.host, request.image_id) == (None, image.image_id)


async def test_a_named_host_pushes_what_it_has(cluster: Cluster) -> None:
    """Whatever is known of its images: it looks itself. One that is unknown or away is refused at once."""
    await _host(cluster, "a", alive=False)
    await _host(cluster, "b")
    cluster.engine.add_image("web:1", [tar_of({"web": b"1"})])
    request = await _push(cluster, host="b")
    assert (request.host, request.image_id) == ("b", None)
    with pytest.raises(EngineUnavailable, match="host a is away"):
        await _push(cluster, host="a")
    with pytest.raises(NotFound, match="no host c"):
        await _push(cluster, host="c")


async def test_an_image_whose_hosts_are_away_is_refused_at_once(cluster: Cluster) -> None:
    """With their names; one that nobody has is not found."""
    with pytest.raises(NotFound, match="no other host is known to hold"):
        await _push(cluster)
    await _host(cluster, "a", alive=False, holds=_on("a", "z"))
    with pytest.raises(EngineUnavailable, match="hosts z, a are away"):
        await _push(cluster)


async def test_a_prompt_is_answered_by_a_push_from_its_host_alone(cluster: Cluster) -> None:
    """A push of what another host has under the name is another matter."""
    await _host(cluster, "a")
    await _host(cluster, "b", holds=_on("b"))
    prompt = Prompt(id=prompt_id(WEB), reference=WEB, image_id=IMAGE_ID, asked_at=NOW, host="b")
    await cluster.bus.commit(asked(STREAMS.prefix, prompt))
    assert (await _push(cluster, host="a")).host == "a"
    request = await _push(cluster)
    assert (request.host, request.why) == ("b", "prompt")
    assert (await _push(cluster)).why == "manual"


async def test_commands_to_a_host_that_is_not_there_are_refused(cluster: Cluster) -> None:
    """Instead of waiting for an answer that does not come."""
    with pytest.raises(NotFound, match="no host b"):
        await answer(cluster.bus, STREAMS, FetchRequested(reference=WEB, host="b"), ImageFetched, source="t")
    assert await cluster.said() == []
