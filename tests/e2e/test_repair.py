"""Repair of the registry's storage from a range with an agent of its own, on the running system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from services.collector.storage import RegistryStorage
from tests.e2e.scene import MEGABYTE, Scene
from tests.integration.collector.test_scrub import cut, flip

pytestmark = pytest.mark.real


def _flip(storage: Path, diff_id: str) -> str:
    """Damage a layer on the disk; its digest in hexadecimal."""
    digest = diff_id.removeprefix("sha256:")
    flip(RegistryStorage(storage).folder(digest) / "data")
    return digest


def test_an_image_that_only_ranges_have_is_made_whole_by_their_agents(scene: Scene) -> None:
    """A scrub finds layers damaged that the host's engine has no more; each range's agent sends its image, and then
    another range gets it from the registry."""
    host, storage = scene.system.host, scene.system.registry.storage
    names = {range_id: f"e2e/{scene.name}-{range_id}:1" for range_id in scene.system.ranges}
    damaged = {}
    for range_id, name in names.items():
        image_id = scene.build(name, range_id, bulk_bytes=MEGABYTE)
        (bulk,) = [one for one in host.layers(name)[-2:-1]]
        scene.deploy(range_id, name)
        damaged[name] = (image_id, bulk)
        host.docker("rmi", name)
    scene.from_now()
    digests = [_flip(storage, bulk) for _, bulk in damaged.values()]
    done = scene.system.cli("registry", "collect", "--scrub")
    assert {f"sha256:{one}" for one in digests} <= set(done.data["damaged"]), done.talk
    for name, (image_id, _) in damaged.items():
        pushed = scene.pushed(name, image_id)
        assert MEGABYTE < pushed.sent_bytes < 2 * MEGABYTE
    assert all(RegistryStorage(storage).is_intact(digest) for digest in digests)
    first, second = names
    (image,) = scene.deploy(first, names[second])
    assert image.how == "pulled"
    assert scene.read(first, names[second]) == second


def test_a_deployment_that_meets_damage_succeeds_all_the_same(scene: Scene) -> None:
    """A layer that was changed, cut or removed on the registry's disk: the range gets the image as an archive, and a
    scrub makes the registry whole."""
    host, storage = scene.system.host, RegistryStorage(scene.system.registry.storage)
    damages: dict[str, Callable[[Path], None]] = {"flip": flip, "cut": cut, "removed": Path.unlink}
    digests = {}
    for damage, hurt in damages.items():
        name = f"e2e/{scene.name}-{damage}:1"
        scene.build(name, damage, bulk_bytes=MEGABYTE)
        digests[damage] = host.layers(name)[-2].removeprefix("sha256:")
        hurt(storage.folder(digests[damage]) / "data")
    names = [f"e2e/{scene.name}-{damage}:1" for damage in damages]
    outcomes = scene.deploy("range-1", *names)
    assert {image.how for image in outcomes} == {"loaded"}
    for damage, name in zip(damages, names, strict=True):
        assert scene.read("range-1", name) == damage
    scene.from_now()
    scene.system.cli("registry", "collect", "--scrub")
    for name in names:
        scene.pushed(name, host.docker("image", "inspect", "--format", "{{.Id}}", name).strip())
    assert all(storage.is_intact(digest) for digest in digests.values())
