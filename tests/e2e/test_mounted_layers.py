"""Images whose layers the host mounts for a range: how they arrive, and everything that people do with them there."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.machine.commands import MachineError
from deploy.machine.polling import poll
from services.adapters.kernel_mounts import mounts_below, unmount
from services.core.deployments.plans import plan_deployment_id
from services.core.images.references import Reference
from tests.e2e.mounted import RANGES, logs_of
from tests.e2e.scene import BASE, MEGABYTE, SLACK_BYTES, Scene

pytestmark = pytest.mark.real


@pytest.fixture(params=RANGES)
def range_id(request: pytest.FixtureRequest) -> str:
    """A range on each version of the engine and each store."""
    return str(request.param)


def test_no_layer_is_sent_to_a_range_that_is_shown_it(mounted: Scene, range_id: str) -> None:
    """The image is there with every byte, and the registry was asked for manifest and config alone."""
    name = f"{mounted.name}:1"
    mounted.build(name, "hello", bulk_bytes=20 * MEGABYTE)
    mounted.from_now()
    (image,) = mounted.deploy(range_id, name)
    assert (image.how, image.sent_bytes, image.not_mounted) == ("mounted", 0, None), logs_of(mounted.system)
    assert mounted.fetched_bytes() < SLACK_BYTES
    assert mounted.is_whole(range_id, name)
    assert mounted.read(range_id, name) == "hello"
    assert mounted.stray_names(range_id) == set()


def test_everything_people_do_with_it(mounted: Scene, range_id: str) -> None:
    """Commit, save, push, tag, a delta on top, and its removal, which gives the layers back to the host."""
    name, engine = f"{mounted.name}:1", mounted.system.ranges[range_id]
    mounted.build(name, "base", bulk_bytes=5 * MEGABYTE)
    (first,) = mounted.deploy(range_id, name)
    assert (first.how, first.not_mounted) == ("mounted", None), logs_of(mounted.system)

    engine.docker("run", "--name", "work", "--network", "none", name, "sh", "-c", "echo more > /more")
    engine.docker("commit", "work", "child:1")
    engine.docker("rm", "work")
    assert engine.docker("run", "--rm", "--network", "none", "child:1", "cat", "/said", "/more").split() == [
        "base",
        "more",
    ]

    archive = mounted.folder / "saved.tar"
    engine.docker("save", "--output", str(archive), name)
    assert saved_layers(archive) == set(engine.layers(name))

    pushed = f"{mounted.system.registry.address}/pushed/{mounted.name}:1"
    engine.docker("tag", "child:1", pushed)
    engine.docker("push", pushed)
    engine.docker("rmi", pushed, "child:1")

    delta = f"{mounted.name}:2"
    mounted.build(delta, "delta", base=name)
    (image,) = mounted.deploy(range_id, delta)
    assert (image.how, image.not_mounted, mounted.read(range_id, delta)) == ("mounted", None, "delta")

    shown = mounted.system.lab.layers / "ranges" / range_id / "layers"
    ours = {layer.removeprefix("sha256:") for layer in mounted.system.host.layers(delta)[1:]}
    assert ours <= names(shown)
    engine.docker("rmi", name, delta)
    mounted.deploy(range_id, BASE)  # an agent looks for unused layers when a transfer has ended, else once a minute
    assert poll(lambda: not ours & names(shown), seconds=90)
    below = mounted.system.lab.layers
    assert poll(lambda: not [point for point in mounts_below(below) if point.path.name in ours], seconds=10)


def test_the_mounter_makes_everything_good_again_after_a_kill(mounted: Scene, range_id: str) -> None:
    """Killed, its mounts taken away by hand: they come back, and the image works as before."""
    name = f"{mounted.name}:1"
    mounted.build(name, "again", bulk_bytes=MEGABYTE)
    (image,) = mounted.deploy(range_id, name)
    assert (image.how, image.not_mounted) == ("mounted", None)
    mounter = mounted.system.lab.server("m-mounter")
    mounter.kill()
    for point in reversed(mounts_below(mounted.system.lab.layers)):
        if point.path != mounted.system.lab.layers:
            unmount(point.path)
    with pytest.raises(MachineError):  # refused: no container starts on an empty folder
        mounted.read(range_id, name)
    if range_id == "m-28.5":  # once: an agent looks when it comes up, else once a minute
        assert told_unreadable(mounted, range_id, name)
    mounter.start()
    shown = mounted.system.lab.layers / "ranges" / range_id / "layers"
    top = mounted.system.host.layers(name)[-1].removeprefix("sha256:")
    assert poll((shown / top).is_mount, seconds=30), logs_of(mounted.system)
    assert mounted.read(range_id, name) == "again"


@pytest.fixture(params=["m-28.5", "m-20.10-classic"])
def new(request: pytest.FixtureRequest, mounted: Scene) -> Iterator[Scene]:
    """A range that comes up for the first time, as the only one of `mounted`; its agent does not run yet."""
    (version, containerd), lab = RANGES[request.param], mounted.system.lab
    name = f"new-{mounted.name}"
    engine = lab.engine(name, version=version, containerd_store=containerd, shown=lab.shown(name))
    yield replace(mounted, system=replace(mounted.system, ranges={name: engine}))
    with suppress(MachineError):  # none was started
        lab.server(f"agent-{name}").stop()
    engine.stop()
    mounted.system.cli("ranges", "forget", name, "--force")


def test_a_range_starts_with_what_it_should_have(new: Scene) -> None:
    """What a plan named before it was there is mounted when it comes up; made anew, its engine has it at once, to be
    built on, listed and pruned like any other.
    """
    ((range_id, engine),) = new.system.ranges.items()
    name, shown = f"{new.name}:1", new.system.lab.layers / "ranges" / range_id
    new.build(name, "planned", bulk_bytes=MEGABYTE)
    planned = new.system.cli("deployments", "plan", name, "--range", range_id, "--id", new.name)
    assert planned.status == 0, planned.talk
    agent = new.system.agent(range_id)
    (image,) = new.ended(plan_deployment_id(new.name, range_id)).images
    assert (image.how, image.not_mounted) == ("mounted", None), logs_of(new.system)

    assert poll(lambda: any(names(shown / "seeds")), seconds=60), logs_of(new.system)
    before = new.book.count(new.system.streams.outbox(range_id))
    agent.stop()
    engine.stop()
    shutil.rmtree(engine.root)
    engine.start()
    assert new.is_whole(range_id, name), engine.log_tail()
    assert new.read(range_id, name) == "planned"
    archive = new.folder / "saved.tar"
    engine.docker("save", "--output", str(archive), name)
    assert saved_layers(archive) == set(engine.layers(name))

    new.from_now()
    agent.start()
    assert poll(lambda: new.book.count(new.system.streams.outbox(range_id)) > before, seconds=60)
    (image,) = new.deploy(range_id, name)
    assert image.how == "present"
    assert new.fetched_bytes() < SLACK_BYTES
    assert new.read(range_id, name) == "planned"  # the host still shows the layers, to another engine now
    ours = {layer.removeprefix("sha256:") for layer in new.system.host.layers(name)[1:]}

    context = new.folder / "on-it"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {name}\nRUN cat /said > /built\nCOPY Dockerfile /Dockerfile\n")
    engine.docker("build", "--network", "none", "--tag", "built:1", str(context))
    assert engine.docker("run", "--rm", "--network", "none", "built:1", "cat", "/built").strip() == "planned"
    assert "Images" in engine.docker("system", "df")
    assert new.name in engine.docker("system", "df", "--verbose")
    engine.docker("system", "prune", "--all", "--force")
    assert engine.names() == set()
    new.deploy(range_id, BASE)
    assert poll(lambda: not ours & names(shown / "layers"), seconds=90), logs_of(new.system)


def told_unreadable(mounted: Scene, range_id: str, name: str) -> bool:
    """Whether `verify` says that layers of the image cannot be read, once the range's agent came up again, and `doctor`
    names the range.
    """
    agent, reference = mounted.system.lab.server(f"agent-{range_id}"), str(Reference.parse(name))
    agent.stop()
    agent.start()

    def told() -> bool:
        found = mounted.system.cli("verify", range_id)
        verdicts = {one["reference"]: one["verdict"] for one in found.data["items"]}
        checks = {one["what"]: one for one in mounted.system.cli("doctor").data["items"]}
        doctor = checks["mounted layers"]
        unreadable = (found.status, verdicts[reference]) == (5, "unreadable")
        return unreadable and doctor["state"] == "wrong" and range_id in doctor["found"]

    return poll(told, seconds=60, every=0.5)


def names(folder: Path) -> set[str]:
    """What is in a folder; nothing if it is not there."""
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def saved_layers(archive: Path) -> set[str]:
    """Digests of the layers' bytes in an archive of `docker save`."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        (image,) = json.load(manifest)
        found = set()
        for path in image["Layers"]:
            layer = tar.extractfile(path)
            assert layer is not None
            digest = hashlib.sha256()
            while block := layer.read(1 << 20):
                digest.update(block)
            found.add(f"sha256:{digest.hexdigest()}")
    return found
