"""Pushes of many images in one request, and the dry run of one."""

from __future__ import annotations

from datetime import UTC, datetime

from events.records import Stored
from services.adapters.memory_archives import tar_of
from services.core.hosts.held_images import HeldImage, HeldImages, HeldKeys
from tests.unit.services.api.site import Service
from tests.unit.services.twins import STREAMS

_PREVIEW = "/api/v1/registry/push/preview?reference="
_MANY = "/api/v1/registry/push-many"


async def test_a_preview_says_what_a_push_would_send(service: Service) -> None:
    """The layers that the registry has are not counted."""
    base, own = tar_of({"base": bytes(50_000)}), tar_of({"own": bytes(20_000)})
    await service.push("web:1", base)
    service.world.engine.add_image("web:2", [base, own])
    preview = await service.get(f"{_PREVIEW}web:2")
    assert (preview["layers"], preview["missing_layers"], preview["tag"]) == (2, 1, "none")
    assert 20_000 <= preview["missing_bytes"] < 50_000


async def test_a_preview_of_what_is_there_says_that_nothing_is_missing(service: Service) -> None:
    """Also that the tag has the same content; for a tag that was rebuilt, that it has other content."""
    layer = tar_of({"web": bytes(1000)})
    await service.push("web:1", layer)
    service.world.engine.add_image("library/web:1", [layer])
    same = await service.get(f"{_PREVIEW}web:1")
    assert (same["missing_layers"], same["missing_bytes"], same["tag"]) == (0, 0, "same")
    service.world.engine.add_image("web:1", [tar_of({"web": bytes(2000)})])
    assert (await service.get(f"{_PREVIEW}web:1"))["tag"] == "other"


async def test_a_preview_of_what_another_host_holds(service: Service) -> None:
    """As the records have it, with the host's name."""
    base, own = tar_of({"base": bytes(50_000)}), tar_of({"own": bytes(20_000)})
    await service.push("base:1", base)
    image = service.world.engine.add_image("web:9", [base, own])
    held = HeldImages(reference="docker.io/library/far:1", hosts={"b": HeldImage.of(image)})
    await service.world.bus.commit(HeldKeys(STREAMS.prefix).written(Stored(None, 0), held, "b", datetime.now(UTC)))
    preview = await service.get(f"{_PREVIEW}far:1")
    assert (preview["host"], preview["layers"], preview["image_id"]) == ("b", 2, image.image_id)
    assert preview["missing_bytes"] >= 20_000


async def test_a_preview_of_an_image_that_is_not_there(service: Service) -> None:
    """An error that names it."""
    assert (await service.get(f"{_PREVIEW}nothing:1", 404))["code"] == "not_found"
    assert (await service.get(f"{_PREVIEW}Not%20A%20Name", 400))["code"] == "bad_reference"


async def test_selected_images_are_pushed_in_one_request(service: Service) -> None:
    """Each is a push of its own; one that cannot be pushed is said, and stops no other."""
    service.world.engine.add_image("web:1", [tar_of({"web": b"1"})])
    service.world.engine.add_image("db:1", [tar_of({"db": b"1"})])
    body, location = await service.post(_MANY, {"references": ["web:1", "gone:1", "db:1"]})
    assert [one["reference"] for one in body["pushes"]] == ["docker.io/library/web:1", "docker.io/library/db:1"]
    assert [(one["reference"], one["code"]) for one in body["refused"]] == [("gone:1", "not_found")]
    assert location == f"/api/v1/push-batches/{body['id']}"
    assert len(await service.world.said()) == 2
    await service.look()
    batch = await service.get(location)
    assert (batch["counts"], batch["ended"]) == ({"requested": 2}, False)
    assert [row["id"] for row in batch["items"]] == [one["id"] for one in body["pushes"]]
    assert batch["refused"] == body["refused"]
    await service.get("/api/v1/push-batches/none", 404)


async def test_all_that_is_missing_is_pushed(service: Service) -> None:
    """What the registry has in the same content is left out, what it has in other content is pushed again."""
    same = tar_of({"same": b"1"})
    await service.push("same:1", same)
    service.world.engine.add_image("same:1", [same])
    await service.push("moved:1", tar_of({"moved": b"1"}))
    service.world.engine.add_image("moved:1", [tar_of({"moved": b"2"})])
    service.world.engine.add_image("new:1", [tar_of({"new": b"1"})])
    body, _ = await service.post(_MANY, {"all_missing": True})
    asked = {one["reference"] for one in body["pushes"]}
    assert {"docker.io/library/moved:1", "docker.io/library/new:1"} <= asked
    assert "docker.io/library/same:1" not in asked
    await service.scan()
    again, _ = await service.post(_MANY, {"all_missing": True})
    assert {one["reference"] for one in again["pushes"]} == asked


async def test_the_same_key_names_the_same_pushes(service: Service) -> None:
    """A repeated request has the ids of the first one."""
    service.world.engine.add_image("web:1", [tar_of({"web": b"1"})])
    ids = []
    for _ in range(2):
        async with service.client.post(
            _MANY, json={"references": ["web:1"]}, headers={"Idempotency-Key": "one"}
        ) as answer:
            ids.append((await answer.json())["pushes"][0]["id"])
    assert ids[0] == ids[1]


async def test_nothing_to_push_is_an_error(service: Service) -> None:
    """As is naming images and all of them."""
    await service.post(_MANY, {}, 400)
    await service.post(_MANY, {"references": ["web:1"], "all_missing": True}, 400)
