"""Following one deployment on the streams."""

import asyncio

from events.envelope import Envelope
from events.messages import DeploymentFailed, DeploymentRequested, DeploymentSucceeded, Message, TransferProgress
from services.queries.progress import watch
from tests.unit.services.twins import STREAMS, Cluster

WEB = "docker.io/library/web:1"
REQUEST = DeploymentRequested(deployment_id="d1", range_id="r1", images=(WEB,))


def _progress(name: str, *, reference: str = WEB, range_id: str | None = "r1", push: bool = False) -> TransferProgress:
    return TransferProgress(
        transfer_id=name, reference=reference, range_id=range_id, kind="push" if push else "pull", phase="sending"
    )


def _note(deployment_id: str, text: str) -> TransferProgress:
    """As the deployer says it: of a deployment as a whole, of no image."""
    return TransferProgress(
        transfer_id=deployment_id, reference="", range_id="r1", kind="pull", phase="waiting", note=text
    )


async def _say(world: Cluster, message: Message, stream: str = STREAMS.progress) -> None:
    await world.bus.publish(stream, Envelope(message=message, source="t", subject="s"))


async def test_only_its_own_progress_and_end_are_told() -> None:
    """Not another range's or another image's; pushes of its images are its own, and what the deployer remarks of it."""
    world = Cluster()
    await _say(world, REQUEST, STREAMS.deployments)
    await _say(world, DeploymentFailed(deployment_id="d2", range_id="r1"), STREAMS.deployments)
    seen: list[str] = []
    watching = asyncio.create_task(
        watch(world.bus, STREAMS, REQUEST, on_progress=lambda step: seen.append(step.transfer_id), on_note=seen.append)
    )
    await _say(world, _progress("push", range_id=None, push=True))
    await _say(world, _progress("other range", range_id="r2"))
    await _say(world, _progress("other image", reference="docker.io/library/db:1"))
    await _say(world, _note("d2", "another deployment's"))
    await _say(world, _note("d1", "goes by tar"))
    await _say(world, _progress("pull"))
    async with asyncio.timeout(10):
        while "pull" not in seen:  # noqa: ASYNC110 - the watcher reads when it is its turn
            await asyncio.sleep(0)
        await _say(world, DeploymentSucceeded(deployment_id="d1", range_id="r1"), STREAMS.deployments)
        assert isinstance(await watching, DeploymentSucceeded)
    assert seen == ["push", "goes by tar", "pull"]


async def test_progress_from_before_the_request_is_another_deployments() -> None:
    """Reading begins a little in the past; what was said there is passed over."""
    world = Cluster()
    await _say(world, _progress("before"))
    await _say(world, DeploymentSucceeded(deployment_id="d1", range_id="r1"), STREAMS.deployments)
    seen: list[str] = []
    async with asyncio.timeout(10):
        await watch(
            world.bus, STREAMS, REQUEST, on_progress=lambda step: seen.append(step.transfer_id), on_note=seen.append
        )
    assert seen == []
