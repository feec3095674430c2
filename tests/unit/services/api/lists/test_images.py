"""Lists over HTTP, answered from the read model alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
import pytest

from events.bus import IndexWrite, Outcome
from events.envelope import Envelope
from events.messages import (
    DeploymentFailed,
    DeploymentRequested,
    Failure,
    ImagePushed,
    Layer,
    PresentImage,
    PushRequested,
    TransferProgress,
)
from events.records import ANY
from services.adapters.memory_archives import tar_of
from services.core.deployments.deployment import Deployment, ImageState
from services.core.deployments.index import DeploymentKeys, index_writes
from services.core.deployments.plans import Plan, PlanKeys
from services.core.images.prompts import Prompt, asked
from services.core.images.pushes import PushKeys, ended, requested, written
from services.core.images.read_model import ImageLayers, RangeInventory, ReadModelKeys, RegistryEntry
from services.core.ranges.ranges import DesiredImage, DesiredImages, KnownRange, RangeKeys
from services.core.store.figures import StoreFigures, figures_key
from tests.unit.services.api.site import Service
from tests.unit.services.twins import STREAMS

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
WEB, DB = "docker.io/library/web:1", "docker.io/library/db:1"
ONE, TWO, BASE, TOP = (f"sha256:{digit * 64}" for digit in "12bc")
PREFIX = STREAMS.prefix


async def _image(service: Service, reference: str, image_id: str, *layers: tuple[str, int], minute: int = 0) -> None:
    keys = ReadModelKeys(PREFIX)
    path, _, tag = reference.removeprefix("docker.io/").partition(":")
    message = ImagePushed(
        reference=reference,
        repository=path,
        tag=tag,
        manifest_digest=image_id,
        image_id=image_id,
        layers=tuple(Layer(digest=digest, diff_id=digest, size_bytes=size) for digest, size in layers),
    )
    at = NOW + timedelta(minutes=minute)
    records = (
        keys.image(reference).write(RegistryEntry.said(message, at), expected=ANY),
        keys.layers(reference).write(ImageLayers.said(message), expected=ANY),
    )
    index = (IndexWrite(keys.images, reference, at.timestamp()),)
    await service.world.bus.commit(Outcome(records=records, index=index))


async def _range(service: Service, range_id: str, *, wanted: str = WEB) -> None:
    keys, held = RangeKeys(PREFIX), ReadModelKeys(PREFIX).holdings(range_id)
    image = PresentImage(references=(WEB,), diff_ids=(), image_id=ONE, size_bytes=5)
    known = KnownRange(
        range_id=range_id,
        engine_id="e",
        engine_version="28.5.1",
        store="classic",
        platform="linux/amd64",
        started_at=NOW,
    )
    desired = DesiredImage(reference=wanted, image_id=ONE, diff_ids=(), deployment_id="d1")
    records = (
        keys.known(range_id).write(known, expected=ANY),
        keys.wanted(range_id).write(DesiredImages(range_id=range_id, images={wanted: desired}), expected=ANY),
        held.write(RangeInventory.announced(range_id, (image,), NOW), expected=ANY),
    )
    index = (IndexWrite(keys.known_index, range_id, NOW.timestamp()),)
    await service.world.bus.commit(Outcome(records=records, index=index))


def _deployment(number: int, state: Literal["running", "succeeded", "failed", "cancelled"] = "running") -> Deployment:
    image = ImageState(reference=WEB, state="pulling" if state == "running" else "ready", since=NOW)
    return Deployment(
        deployment_id=f"d{number}",
        range_id=f"r{number % 2}",
        state=state,
        asked=(WEB,),
        images=(msgspec.structs.replace(image, transfer_id=f"d{number}.0.1"),),
        requested_at=NOW + timedelta(seconds=number),
        correlation_id="c",
        actor="eva",
    )


async def _deployed(service: Service, deployment: Deployment) -> None:
    keys = DeploymentKeys(PREFIX)
    record = keys.record(deployment.deployment_id).write(deployment, expected=ANY)
    await service.world.bus.commit(Outcome(records=(record,), index=index_writes(keys, None, deployment)))


async def test_images_say_what_only_they_need(service: Service) -> None:
    """A shared layer is nobody's own; the details name each layer, and the ranges that have the image."""
    await _image(service, WEB, ONE, (BASE, 100), (TOP, 5), minute=1)
    await _image(service, DB, TWO, (BASE, 100))
    await _range(service, "r1")
    await service.look()
    listed = await service.get("/api/v1/registry/images?sort=pushed")
    assert [(row["reference"], row["unique_bytes"], row["ranges"]) for row in listed["items"]] == [
        (WEB, 5, 1),
        (DB, 0, 0),
    ]
    assert (listed["total"], listed["counts"], listed["next"]) == (2, {"image": 2}, None)
    details = await service.get("/api/v1/registry/images/web:1")
    assert [(one["size_bytes"], one["references"]) for one in details["shares"]] == [(100, 2), (5, 1)]
    assert details["held_by"] == ["r1"]
    assert (await service.get("/api/v1/registry/images/none:1", 404))["code"] == "not_found"
    (web, *_) = (await service.get("/api/v1/registry/images?q=WEB&kind=image&repository=library/web"))["items"]
    assert web["reference"] == WEB
    repositories = (await service.get("/api/v1/registry/repositories?sort=stored"))["items"]
    assert [(one["repository"], one["unique_bytes"], one["shared_bytes"]) for one in repositories] == [
        ("library/web", 5, 100),
        ("library/db", 0, 100),
    ]
    assert [row["reference"] for row in (await service.get("/api/v1/registry/unwanted"))["items"]] == [DB]


async def test_statistics_count_shared_layers_once(service: Service) -> None:
    """Stored once, counted twice in what images would take; before a scan nobody knows whether it is healthy."""
    await _image(service, WEB, ONE, (BASE, 100), (TOP, 5))
    await _image(service, DB, TWO, (BASE, 100))
    await service.look()
    stats = await service.get("/api/v1/registry/stats")
    assert (stats["images"], stats["repositories"], stats["layers"]) == (2, 2, 2)
    assert (stats["storage_used_bytes"], stats["logical_bytes"], stats["saved_bytes"]) == (105, 205, 100)
    assert (stats["healthy"], stats["stale"], stats["as_of"]) == (False, True, None)


@pytest.mark.parametrize(("disk_bytes", "used", "measured"), [(200, 200, True), (28, 105, False), (0, 105, False)])
async def test_the_collectors_last_figures_count_until_more_was_pushed(
    service: Service, disk_bytes: int, used: int, measured: bool
) -> None:
    """Where the registry's disk is not, as on a further host. Figures from before the last push are no measurement."""
    others = [field.name for field in msgspec.structs.fields(StoreFigures) if field.type is int]
    said = dict.fromkeys(others, 0) | {"disk_bytes": disk_bytes, "free_bytes": 7}
    figures = msgspec.convert({**said, "at": NOW}, StoreFigures)
    await service.world.bus.commit(Outcome(records=(figures_key(PREFIX).write(figures, expected=ANY),)))
    await _image(service, WEB, ONE, (BASE, 100), (TOP, 5))
    await service.look()
    stats = await service.get("/api/v1/registry/stats")
    assert (stats["storage_used_bytes"], stats["storage_measured"]) == (used, measured)
    assert stats["storage_free_bytes"] == (7 if measured else None)


async def test_lists_answer_while_registry_and_engine_are_away(service: Service) -> None:
    """From what the last scan found, marked as stale; nobody is called."""
    await service.push("web:1", tar_of({"web": b"1"}))
    await service.scan()
    fresh = await service.get("/api/v1/registry/images")
    assert (len(fresh["items"]), fresh["stale"], (await service.get("/api/v1/registry/stats"))["healthy"]) == (
        1,
        False,
        True,
    )
    assert {row["registry"] for row in (await service.get("/api/v1/images"))["items"]} == {"no"}
    service.world.registry.away = service.world.engine.away = True
    await service.scan()
    for path in ("/api/v1/registry/images", "/api/v1/images"):
        answer = await service.get(path)
        assert (len(answer["items"]), answer["stale"]) == (1, True)
    stats = await service.get("/api/v1/registry/stats")
    assert (stats["healthy"], stats["error"]["code"], stats["images"]) == (False, "registry_unavailable", 1)
    service.world.bus.calls_left = 0
    for path in ("/api/v1/deployments", "/api/v1/ranges", "/api/v1/pushes", "/api/v1/transfers", "/api/v1/plans"):
        assert (await service.get(path))["items"] == []


async def test_deployments_are_filtered_sorted_and_paged(service: Service) -> None:
    """Fifty rows are small; details have the transfers with their layers."""
    for number in range(6):
        await _deployed(service, _deployment(number, "running" if number % 3 else "succeeded"))
    progress = TransferProgress(transfer_id="d1.0.1", reference=WEB, kind="pull", phase="downloading", range_id="r1")
    await service.world.bus.publish(STREAMS.progress, Envelope(message=progress, source="t", subject="r1"))
    async for entry in service.world.bus.tail((STREAMS.progress,), after="0", follow=False):
        service.mirror.transfers.told(entry, NOW)
    await service.look()
    first = await service.get("/api/v1/deployments?limit=2&state=running")
    assert [row["deployment_id"] for row in first["items"]] == ["d5", "d4"]
    assert (first["total"], first["counts"]) == (4, {"running": 4, "succeeded": 2})
    rest = await service.get(f"/api/v1/deployments?state=running&cursor={first['next']}")
    assert [row["deployment_id"] for row in rest["items"]] == ["d2", "d1"]
    of_range = await service.get("/api/v1/deployments?range_id=r0&image=web:1&order=asc")
    assert [row["deployment_id"] for row in of_range["items"]] == ["d0", "d2", "d4"]
    details = await service.get("/api/v1/deployments/d1")
    assert [one["transfer_id"] for one in details["transfers"]] == ["d1.0.1"]
    assert (await service.get("/api/v1/transfers/d1.0.1"))["phase"] == "downloading"
    assert (await service.get("/api/v1/transfers/none", 404))["code"] == "not_found"
    (transfer,) = (await service.get("/api/v1/transfers?kind=pull&range_id=r1"))["items"]
    assert transfer["layers"] == []


async def test_a_request_that_nobody_took_is_listed(service: Service) -> None:
    """Also one that was given up before there was a record."""
    for ident in ("d1", "d2"):
        message = DeploymentRequested(deployment_id=ident, range_id="r1", images=(WEB,))
        await service.world.bus.publish(STREAMS.deployments, Envelope(message=message, source="t", subject="r1"))
    failed = DeploymentFailed(deployment_id="d2", range_id="r1", error=Failure(code="bad_reference", message="no"))
    await service.world.bus.publish(STREAMS.deployments, Envelope(message=failed, source="t", subject="r1"))
    await service.look()
    rows = (await service.get("/api/v1/deployments?sort=state"))["items"]
    assert [(row["deployment_id"], row["state"]) for row in rows] == [("d2", "failed"), ("d1", "requested")]
    assert (await service.get("/api/v1/deployments/none", 404))["code"] == "not_found"


async def test_ranges_say_what_they_lack_and_have_too_much(service: Service) -> None:
    """One with its desired image, one without it; the details list both."""
    await _range(service, "r1")
    await _range(service, "r2", wanted=DB)
    await service.world.bus.beat(STREAMS.alive("r1"), b'{"engine_id":"e1","at":"now"}', 60)
    await _deployed(service, _deployment(1))
    await service.look()
    rows = {row["range_id"]: row for row in (await service.get("/api/v1/ranges"))["items"]}
    assert (rows["r1"]["agent"], rows["r1"]["at"], rows["r1"]["missing"], rows["r1"]["open_deployments"]) == (
        "alive",
        "now",
        0,
        1,
    )
    assert (rows["r2"]["agent"], rows["r2"]["missing"], rows["r2"]["unreferenced"]) == ("away", 1, 1)
    assert [row["range_id"] for row in (await service.get("/api/v1/ranges?agent=away"))["items"]] == ["r2"]
    details = await service.get("/api/v1/ranges/r2")
    assert [(one["reference"], one["present"]) for one in details["should_have"]] == [(DB, False)]
    assert [one["reference"] for one in details["held"]] == [WEB]
    assert (await service.get("/api/v1/ranges/r1"))["deployments"] == ["d1"]
    assert (await service.get("/api/v1/ranges/none", 404))["code"] == "not_found"


async def test_pushes_prompts_and_plans_are_listed(service: Service) -> None:
    """A push while it is under way and at its end; a prompt until it is answered; a plan as far as it is."""
    bus, keys = service.world.bus, PushKeys(PREFIX)
    for number in range(2):
        message = PushRequested(reference=WEB, image_id=ONE)
        envelope = Envelope(message=message, source="t", subject=WEB, id=f"p{number}", actor="eva")
        record = requested(envelope, message)
        if number:
            layer = Layer(digest=BASE, diff_id=BASE, size_bytes=1)
            pushed = ImagePushed(
                reference=WEB, repository="library/web", tag="1", manifest_digest=TWO, image_id=ONE, layers=(layer,)
            )
            record = ended(record, Envelope(message=pushed, source="t", subject=WEB), pushed)
        await bus.commit(written(keys, await keys.record(record.id).load(bus), record, datetime.now(UTC)))
    await bus.commit(asked(PREFIX, Prompt(id="q1", reference=DB, image_id=TWO, asked_at=NOW)))
    plan = Plan(plan_id="plan-1", images=(WEB, DB), range_ids=("r1",), announced_at=NOW, deployments={"r1": "d1"})
    plans = PlanKeys(PREFIX)
    await bus.commit(
        Outcome(
            records=(plans.record("plan-1").write(plan, expected=ANY),),
            index=(IndexWrite(plans.all, "plan-1", NOW.timestamp()),),
        )
    )
    await _image(service, WEB, ONE, minute=1)
    await service.look()
    rows = (await service.get("/api/v1/pushes?reference=web:1"))["items"]
    assert {(row["id"], row["state"], row["actor"]) for row in rows} == {
        ("p0", "requested", "eva"),
        ("p1", "pushed", "eva"),
    }
    assert (await service.get("/api/v1/pushes/p1"))["result"]["manifest_digest"] == TWO
    assert (await service.get("/api/v1/pushes/none", 404))["code"] == "not_found"
    assert [row["id"] for row in (await service.get("/api/v1/prompts"))["items"]] == ["q1"]
    (row,) = (await service.get("/api/v1/plans?state=under%20way"))["items"]
    assert (row["plan_id"], row["there"], row["images"], row["ready_ranges"]) == ("plan-1", 1, 2, 0)
    assert (await service.get("/api/v1/plans/plan-1"))["images"][0]["registry"] == "there"


@pytest.mark.parametrize("path", ["registry/images", "deployments", "ranges", "pushes", "plans", "transfers", "images"])
async def test_every_list_has_one_parser(service: Service, path: str) -> None:
    """Unknown and doubled parameters, other orders and foreign cursors are 400."""
    for query in ("nothing=1", "limit=1&limit=2", "sort=shape", "order=up", "cursor=x", "limit=1001", "q=" + "x" * 300):
        assert (await service.get(f"/api/v1/{path}?{query}", 400))["code"] == "bad_input"


async def test_fifty_rows_of_long_texts_are_small(service: Service) -> None:
    """What ranges and others write is cut in rows."""
    long = Failure(code="transfer_failed", message="x" * 5000)
    for number in range(50):
        deployment = msgspec.structs.replace(_deployment(number, "failed"), error=long, reason="y" * 5000)
        await _deployed(service, deployment)
        await _image(service, f"docker.io/library/{'n' * 100}-{number}:1", f"sha256:{number:064}", (BASE, 1))
    await service.look()
    for path in ("/api/v1/deployments", "/api/v1/registry/images"):
        async with service.client.get(path, headers={"Accept-Encoding": "identity"}) as answer:
            assert len(await answer.read()) <= 64 * 1024
