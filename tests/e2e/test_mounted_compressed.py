"""Images that the registry holds compressed, from a host on containerd's store: unpacked on the host, and mounted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.machine.polling import poll
from events.messages import AgentStarted, Layer
from services.adapters.kernel_mounts import mounts_below
from services.core.images.references import Reference
from services.core.mounts.layer_mounts import blob_name
from tests.e2e.scene import BASE, MEGABYTE, SLACK_BYTES, Scene
from tests.e2e.test_mounted_layers import names, saved_layers
from tests.laboratory import Lab, RoleServer, System, Valve, mkfs_erofs

pytestmark = pytest.mark.real

#: Range → version of its engine (None: the machine's own, 20.10), and whether it is on containerd's store.
RANGES: dict[str, tuple[str | None, bool]] = {
    "p-28.5": ("28.5", True),
    "p-20.10-classic": (None, False),
}


@pytest.fixture(scope="module")
def packed_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Valve]]:
    """A laboratory of its own, whose host engine is on containerd's store. Nothing unused is kept unpacked."""
    with Lab(tmp_path_factory.mktemp("packed")) as lab, mkfs_erofs(lab.cache) as program:
        assert lab.layers.is_dir()  # made before the engines start
        host = lab.engine("host", version="28.5", containerd_store=True)
        host.docker("import", str(lab.base_image_tar()), BASE)
        ranges = {
            name: lab.engine(name, version=version, containerd_store=containerd, shown=lab.shown(name))
            for name, (version, containerd) in RANGES.items()
        }
        registry = lab.registry()
        with Valve(registry.port) as valve:
            system = System(
                lab=lab,
                redis=lab.redis(),
                registry=registry,
                host=host,
                ranges=ranges,
                mkfs_erofs=program,
                settings={"registry_address": valve.address, "unpacked_limit_bytes": 0},
            )
            servers: list[RoleServer] = [system.services(), system.services("layer-mounter", name="mounter")]
            servers += [system.agent(range_id) for range_id in ranges]
            yield system, valve
            for server in reversed(servers):
                server.stop()


@pytest.fixture
def packed(packed_system: tuple[System, Valve], tmp_path: Path, unique: str) -> Iterator[Scene]:
    """One test's view of it, once the layer-mounter and the agents are there."""
    system, valve = packed_system
    with system.logbook() as book:
        scene = Scene(system=system, book=book, valve=valve, folder=tmp_path, name=unique, mark=book.mark())
        assert poll(lambda: _is_up(scene), seconds=60), logs_of(system)
        yield scene


@pytest.fixture(params=RANGES)
def range_id(request: pytest.FixtureRequest) -> str:
    """A range on each store."""
    return str(request.param)


def test_compressed_layers_are_mounted(packed: Scene, range_id: str) -> None:
    """No layer is sent. Commit, save, push, build, a new layer on top, and the removal that gives everything back."""
    name, engine = f"{packed.name}:1", packed.system.ranges[range_id]
    image_id = packed.build(name, "base", bulk_bytes=5 * MEGABYTE)
    layers = packed.pushed(name, image_id).layers
    assert {layer.codec for layer in layers} == {"gzip"}
    packed.from_now()
    (image,) = packed.deploy(range_id, name)
    assert (image.how, image.sent_bytes, image.not_mounted) == ("mounted", 0, None), logs_of(packed.system)
    assert packed.fetched_bytes() < SLACK_BYTES
    assert packed.is_whole(range_id, name)
    assert packed.read(range_id, name) == "base"
    assert packed.stray_names(range_id) == set()

    engine.docker("run", "--name", "work", "--network", "none", name, "sh", "-c", "echo more > /more")
    engine.docker("commit", "work", "child:1")
    engine.docker("rm", "work")
    more = engine.docker("run", "--rm", "--network", "none", "child:1", "cat", "/said", "/more")
    assert more.split() == ["base", "more"]

    # An archive has the layers as the store has them.
    archive = packed.folder / "saved.tar"
    engine.docker("save", "--output", str(archive), name)
    by_blob = RANGES[range_id][1]
    assert saved_layers(archive) == {layer.digest if by_blob else layer.diff_id for layer in layers}

    pushed = f"{packed.system.registry.address}/pushed/{packed.name}:1"
    engine.docker("tag", "child:1", pushed)
    engine.docker("push", pushed)
    engine.docker("rmi", pushed, "child:1")

    context = packed.folder / "on-it"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {name}\nRUN cat /said > /built\n")
    engine.docker("build", "--network", "none", "--tag", "built:1", str(context))
    assert engine.docker("run", "--rm", "--network", "none", "built:1", "cat", "/built").strip() == "base"
    engine.docker("rmi", "built:1")

    delta = f"{packed.name}:2"
    on_top = packed.pushed(delta, packed.build(delta, "delta", base=name)).layers
    (image,) = packed.deploy(range_id, delta)
    assert (image.how, image.not_mounted, packed.read(range_id, delta)) == ("mounted", None, "delta")

    ours = {blob_name(layer) for layer in (*layers[1:], *on_top[1:])}
    below = packed.system.lab.layers
    shown = below / "ranges" / range_id / "layers"
    assert ours <= names(shown)
    for image_name in (name, delta):  # else the deployer brings them back
        assert packed.system.cli("ranges", "forget", range_id, image_name).status == 0
    engine.docker("rmi", name, delta)
    engine.docker("system", "prune", "--all", "--force")
    packed.deploy(range_id, BASE)  # an agent looks for unused layers when a transfer has ended, else once a minute
    assert poll(lambda: not ours & names(shown), seconds=90), logs_of(packed.system)
    assert poll(lambda: not ours & {point.path.name for point in mounts_below(below)}, seconds=10)
    assert poll(lambda: not ours & unpacked(below), seconds=150), logs_of(packed.system)


def test_a_new_engine_starts_with_compressed_layers(packed: Scene, range_id: str) -> None:
    """Made anew, the range's engine has the image before its agent says a word, whole also in what it saves."""
    name, engine = f"{packed.name}:1", packed.system.ranges[range_id]
    layers = packed.pushed(name, packed.build(name, "again", bulk_bytes=MEGABYTE)).layers
    (image,) = packed.deploy(range_id, name)
    assert (image.how, image.not_mounted) == ("mounted", None), logs_of(packed.system)
    shown = packed.system.lab.layers / "ranges" / range_id
    assert poll(lambda: str(Reference.parse(name)) in seed_of(shown), seconds=60), logs_of(packed.system)
    agent = packed.system.lab.server(f"agent-{range_id}")
    agent.stop()
    engine.stop()
    shutil.rmtree(engine.root)
    engine.start()
    assert packed.is_whole(range_id, name), engine.log_tail()
    assert packed.read(range_id, name) == "again"
    archive = packed.folder / "saved.tar"
    engine.docker("save", "--output", str(archive), name)
    assert saved_layers(archive) == {layer.digest if RANGES[range_id][1] else layer.diff_id for layer in layers}
    agent.start()
    (image,) = packed.deploy(range_id, name)
    assert image.how == "present"


def test_a_layer_that_does_not_unpack_is_pulled(packed: Scene) -> None:
    """Where unpacking is turned off the outcome says so; nothing of it is mounted."""
    name, system = f"{packed.name}:1", packed.system
    image_id = packed.build(name, "pulled", bulk_bytes=MEGABYTE)
    top = packed.pushed(name, image_id).layers[-1]
    mounter = system.lab.server("mounter")
    mounter.stop()
    off = replace(system, settings={**system.settings, "mount_compressed": False})
    other = off.services("layer-mounter", name="mounter-off")
    try:
        assert poll(packed.book.mounts, seconds=60)
        (image,) = packed.deploy("p-28.5", name)
        assert image.how == "pulled"
        assert "CYROID_MOUNT_COMPRESSED is off" in (image.not_mounted.message if image.not_mounted else "")
        assert packed.read("p-28.5", name) == "pulled"
        assert not any(is_of(point.path.name, top) for point in mounts_below(system.lab.layers))
    finally:
        other.stop()
        mounter.start()


def unpacked(layers: Path) -> set[str]:
    """Layers of which there is an unpacked copy."""
    return {name.rpartition(".")[0] for name in names(layers / "unpacked")}


def seed_of(shown: Path) -> str:
    """What a range is shown for its next engine."""
    try:
        return "".join((folder / "seed.json").read_text() for folder in (shown / "seeds").glob("*"))
    except FileNotFoundError:  # replaced just now
        return ""


def is_of(name: str, layer: Layer) -> bool:
    return name.startswith(layer.diff_id.removeprefix("sha256:"))


def logs_of(system: System) -> str:
    servers = ("mounter", *(f"agent-{range_id}" for range_id in system.ranges))
    return "\n".join(system.lab.server(name).log_tail() for name in servers)


def _is_up(scene: Scene) -> bool:
    """Every range announced itself with what it can do, and the layer-mounter beats."""
    outboxes = {scene.system.streams.outbox(range_id): "0-0" for range_id in scene.system.ranges}
    able = {m.range_id for m in scene.book.find(AgentStarted, outboxes, lambda m: m.mounts_layers)}
    return able == set(scene.system.ranges) and scene.book.mounts()
