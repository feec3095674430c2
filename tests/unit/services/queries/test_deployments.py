"""Deployments as people see them, over the bus in memory."""

from datetime import UTC, datetime, timedelta

import pytest

from events.bus import NOTHING, Outcome
from events.envelope import Envelope
from events.lease import Holder
from events.messages import DeploymentFailed, DeploymentRequested, Failure, Message
from events.records import ANY
from services.core.deployments.deployment import Deployment, ImageState, State
from services.core.deployments.index import DeploymentKeys, index_writes
from services.errors import NotFound
from services.queries.deployments import latest_deployments, one_deployment
from tests.unit.services.twins import STREAMS, Cluster

NOW = datetime.now(UTC)
KEYS = DeploymentKeys(STREAMS.prefix)


async def _store(world: Cluster, name: str, *states: State, minutes: int = 0, priority: int = 5) -> None:
    at = NOW + timedelta(minutes=minutes)
    images = tuple(
        ImageState(reference=f"docker.io/library/{name}-{index}:1", state=state, since=at, size_bytes=index)
        for index, state in enumerate(states)
    )
    deployment = Deployment(
        deployment_id=name,
        range_id="r1",
        state="succeeded" if set(states) == {"ready"} else "running",
        asked=tuple(image.reference for image in images),
        images=images,
        requested_at=at,
        ended_at=at + timedelta(seconds=7) if set(states) == {"ready"} else None,
        correlation_id="c",
        priority=priority,
    )
    record = KEYS.record(name).write(deployment, expected=ANY)
    await world.bus.commit(Outcome(records=(record,), index=index_writes(KEYS, None, deployment)))


async def _say(world: Cluster, message: Message) -> None:
    await world.bus.publish(STREAMS.deployments, Envelope(message=message, source="cli", subject="s"))


async def test_records_tell_states_and_places_in_the_queue() -> None:
    """Places follow the rules of admission: priority before waiting longer, small before large in one deployment."""
    world = Cluster()
    await _store(world, "done", "ready")
    await _store(world, "first", "pulling", "queued", "queued", minutes=1)
    await _store(world, "urgent", "queued", minutes=2, priority=9)
    rows = await latest_deployments(world.bus, STREAMS, 10)
    assert [(row.deployment_id, row.state, row.queue_position) for row in rows] == [
        ("urgent", "running", 1),
        ("first", "running", 2),
        ("done", "succeeded", None),
    ]
    assert [(one.state, one.queue_position) for one in rows[1].images] == [
        ("pulling", None),
        ("queued", 2),
        ("queued", 3),
    ]
    assert rows[2].seconds == 7.0
    assert [row.deployment_id for row in await latest_deployments(world.bus, STREAMS, 1)] == ["urgent"]
    assert (await one_deployment(world.bus, STREAMS, "first")).queue_position == 2


async def test_what_no_deployer_has_read_is_only_asked_for() -> None:
    """It stands first until there is a record of it."""
    world = Cluster()
    await _store(world, "old", "ready")
    request = DeploymentRequested(deployment_id="new", range_id="r1", images=("docker.io/library/web:1",))
    await _say(world, request)
    rows = await latest_deployments(world.bus, STREAMS, 10)
    assert [(row.deployment_id, row.state) for row in rows] == [("new", "requested"), ("old", "succeeded")]
    assert (await one_deployment(world.bus, STREAMS, "new")).images[0].state == "requested"
    await _store(world, "new", "resolving", minutes=1)
    assert [row.state for row in await latest_deployments(world.bus, STREAMS, 10)] == ["running", "succeeded"]


async def test_a_request_that_was_given_up_is_told_with_its_reason() -> None:
    """It has no record; the list leaves it to the dead letters once the deployer has read everything."""
    world = Cluster()
    await _say(world, DeploymentRequested(deployment_id="bad", range_id="r1", images=("docker.io/library/web:1",)))
    await _say(
        world, DeploymentFailed(deployment_id="bad", range_id="r1", error=Failure(code="bad_input", message="no"))
    )
    error = (await one_deployment(world.bus, STREAMS, "bad")).error
    assert error is not None
    assert error.code == "bad_input"
    holder = Holder("deployer", "w")
    leases = (await world.bus.take(holder, [STREAMS.deployments], 9)).leases
    assert [row.state for row in await latest_deployments(world.bus, STREAMS, 10)] == ["failed"]
    for lease in leases:
        await world.bus.finish(lease, NOTHING)
    assert await latest_deployments(world.bus, STREAMS, 10) == []


async def test_an_unknown_one_is_not_found() -> None:
    """With the command that lists those there are, as a hint for the command line."""
    with pytest.raises(NotFound, match="no deployment 'none'") as told:
        await one_deployment(Cluster().bus, STREAMS, "none")
    assert told.value.hint == "cyroid-images deployments ls"
