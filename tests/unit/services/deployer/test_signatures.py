"""Deployments of an operator who trusts signed images alone. Among fakes, in faked time."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from events.messages import PushRequested
from services.core.images.references import Reference
from tests.signing import Signer
from tests.simulation import SETTINGS, Cluster, eventually
from tests.unit.services.deployment_requests import APP, request

pytestmark = pytest.mark.faked_time
REPOSITORY = Reference.parse(APP).repository


async def _pushed(world: Cluster) -> str:
    """The image is in the registry; its manifest's digest."""
    world.host.add_image(APP, [b"app"])
    await world.say(world.streams.images, PushRequested(reference=APP))
    await eventually(lambda: world.registry.manifest(REPOSITORY, "1"), within_seconds=60)
    found = await world.registry.manifest(REPOSITORY, "1")
    assert found is not None
    return found[0].digest


async def test_only_a_signed_image_reaches_a_range(tmp_path: Path) -> None:
    """Unsigned it fails, with no transfer; signed and retried it arrives, and the outcome tells where it came from."""
    signer = Signer(tmp_path)
    async with Cluster(settings=msgspec.structs.replace(SETTINGS, signature_keys=str(tmp_path))) as world:
        digest = await _pushed(world)
        await world.say(world.streams.deployments, request("d1", "r0"))
        refused = await world.ended("d1", within_seconds=120)
        assert refused.state == "failed"
        assert refused.images[0].error is not None
        assert refused.images[0].error.code == "not_signed"
        assert refused.images[0].started_at is None
        await signer.sign(world.registry, REPOSITORY, digest)
        await world.say(world.streams.deployments, request("d2", "r0"))
        arrived = await world.ended("d2", within_seconds=120)
        assert arrived.state == "succeeded"
        (end,) = await world.ends("d2")
        provenance = end.images[0].provenance
        assert provenance is not None
        assert (provenance.manifest_digest, provenance.signed) == (digest, True)
        assert provenance.source


async def test_an_unsigned_image_does_not_go_by_tar_either(tmp_path: Path) -> None:
    """Also while the registry is away, from where its signature would come."""
    Signer(tmp_path)
    async with Cluster(settings=msgspec.structs.replace(SETTINGS, signature_keys=str(tmp_path))) as world:
        world.host.add_image(APP, [b"app"])
        world.registry.away = True
        await world.say(world.streams.deployments, request("d1", "r0"))
        ended = await world.ended("d1", within_seconds=600)
        assert ended.images[0].error is not None
        assert (ended.state, ended.images[0].error.code) == ("failed", "unavailable")
        assert ended.images[0].started_at is None
