"""Deployments during faults: each one still ends, and what arrived is right."""

from __future__ import annotations

import pytest

from events.messages import DeploymentFailed, DeploymentSucceeded
from tests.e2e.scene import MEGABYTE, SLACK_BYTES, Scene
from tests.laboratory import RoleServer

pytestmark = pytest.mark.real


def test_without_a_registry_the_image_comes_as_a_tar_of_what_is_missing(scene: Scene) -> None:
    """The registry is stopped before the deployment: only the new layer is in the archive that is loaded."""
    name = f"e2e/{scene.name}:1"
    scene.build(name, "old", bulk_bytes=3 * MEGABYTE)
    scene.deploy("range-1", name)
    scene.system.registry.stop()
    image_id = scene.build(name, "new", base=name, pushed=False)
    (image,) = scene.deploy("range-1", name)
    assert image.how == "loaded"
    assert 0 < image.sent_bytes < SLACK_BYTES
    assert image.layers_reused == image.layers_total - 1
    assert scene.read("range-1", name) == "new"
    scene.system.registry.start()
    scene.pushed(name, image_id)


def test_without_a_registry_an_unknown_image_comes_whole(scene: Scene) -> None:
    """A range that has nothing of the image gets all of its layers in one archive."""
    name = f"e2e/{scene.name}:1"
    scene.system.registry.stop()
    scene.build(name, "whole", bulk_bytes=3 * MEGABYTE, pushed=False)
    (image,) = scene.deploy("range-2", name)
    assert image.how == "loaded"
    assert image.sent_bytes > 3 * MEGABYTE
    assert scene.is_whole("range-2", name)
    assert scene.read("range-2", name) == "whole"


def test_a_registry_that_dies_during_the_pull_is_replaced_by_a_tar(scene: Scene) -> None:
    """The pull had begun when the registry was killed: the image still arrives, and no half of it stays."""
    name = f"e2e/{scene.name}:1"
    scene.build(name, "survivor", bulk_bytes=8 * MEGABYTE)
    scene.valve.shut_after(4 * MEGABYTE)
    begun = scene.begin("range-1", name)
    scene.valve.wait_shut()
    scene.system.registry.kill()
    scene.valve.cut()
    scene.valve.open()
    ended = scene.ended(begun)
    assert isinstance(ended, DeploymentSucceeded)
    assert ended.images[0].how == "loaded"
    assert scene.read("range-1", name) == "survivor"
    assert not scene.stray_names("range-1")


def test_an_agent_that_dies_during_the_pull_is_carried_on_by_the_next(
    scene: Scene, agents: dict[str, RoleServer]
) -> None:
    """The deployment ends once, as a success, after the agent was killed in the middle and started again."""
    name = f"e2e/{scene.name}:1"
    scene.build(name, "carried on", bulk_bytes=8 * MEGABYTE)
    scene.valve.shut_after(4 * MEGABYTE)
    begun = scene.begin("range-1", name)
    scene.valve.wait_shut()
    agents["range-1"].kill()
    scene.valve.open()
    agents["range-1"].start()
    ended = scene.ended(begun)
    assert isinstance(ended, DeploymentSucceeded)
    assert scene.is_whole("range-1", name)
    assert scene.read("range-1", name) == "carried on"
    assert not scene.stray_names("range-1")


def test_with_the_host_engine_stopped_the_registry_is_enough(scene: Scene) -> None:
    """What was pushed before can be deployed without the engine that made it."""
    name = f"e2e/{scene.name}:1"
    scene.build(name, "kept", bulk_bytes=MEGABYTE)
    layers = scene.system.host.layers(name)
    scene.system.host.stop()
    (image,) = scene.deploy("range-1", name)
    assert image.how == "pulled"
    assert scene.system.ranges["range-1"].layers(name) == layers
    assert scene.read("range-1", name) == "kept"


def test_with_the_host_engine_stopped_building_says_so(scene: Scene) -> None:
    """One clear line with the engine's address, an exit status of its own, and nothing on the bus."""
    scene.system.host.stop()
    context = scene.folder / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")
    done = scene.system.cli("images", "build", str(context), "-t", f"e2e/{scene.name}:1")
    assert done.status == 4
    assert str(scene.system.host.socket) in done.talk
    assert len(done.talk.strip().splitlines()) == 1
    assert scene.announced() == []


def test_a_range_whose_agent_is_away_fails_with_what_to_do(scene: Scene, agents: dict[str, RoleServer]) -> None:
    """After the grace the deployment fails, names the range, and the next one succeeds when the agent is back."""
    name = f"e2e/{scene.name}:1"
    scene.build(name, "later")
    agents["range-2"].kill()
    ended = scene.ended(scene.begin("range-2", name))
    assert isinstance(ended, DeploymentFailed)
    reasons = [ended.error, *(image.error for image in ended.images)]
    assert any(reason is not None and "range-2" in reason.message for reason in reasons)
    agents["range-2"].start()
    (image,) = scene.deploy("range-2", name)
    assert image.how == "pulled"
