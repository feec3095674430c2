"""Content of mounted images, file by file: what a container in the range sees is what one on the host sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.killall.mounted import linked
from bench.matrix.content import import_base
from bench.matrix.files import differences, keeper, seen
from deploy.machine.polling import poll
from services.adapters.engine import DockerEngine
from tests.e2e.mounted import logs_of
from tests.e2e.scene import BASE, Scene
from tests.e2e.test_mounted_layers import names as names_in
from tests.e2e.test_mounted_layers import saved_layers
from tests.integration.hard_layers import INPUTS, marked
from tests.integration.test_layer_sources import files_of, load

pytestmark = pytest.mark.real

#: Range → inputs pulled there, and why. mkfs.erofs refuses entries below a symbolic link of the same layer, and
#: tars that end without their end.
RANGES: dict[str, dict[str, str]] = {
    "m-28.5": {"behind_a_link": "mkfs.erofs cannot index", "ends": "mkfs.erofs cannot index"},
    "m-20.10-classic": {"behind_a_link": "mkfs.erofs cannot index", "ends": "mkfs.erofs cannot index"},
}
#: Where an input is left out: a hundred and twenty mounts take a while, and the classic store is the harder one.
LEFT_OUT = {"m-28.5": {"hundred_and_twenty"}}
Files = dict[str, tuple[object, ...]]


def told(files: Files) -> Files:
    """Without the mode of symbolic links, which means nothing and which EROFS keeps as the tar has it; times before
    1970 are 1970, as engine 20.10 makes them."""
    return {
        name: (kind, None if kind == b"2" else mode, owner, max(0, int(str(mtime))), *rest)
        for name, (kind, mode, owner, mtime, *rest) in files.items()
    }


async def test_hard_layers_are_the_same_files(mounted: Scene, unique: str) -> None:
    """Whiteouts, attributes, odd names, repeated and empty layers, 120 of them: seen, and saved byte for byte. When the
    images are removed, nothing of them is left in the engine, and the range is shown none of their layers.

    All in one deployment, so that an engine on the classic store is restarted once.
    """
    names = {kind: f"docker.io/{unique}/{kind}:1" for kind in INPUTS}
    async with DockerEngine.open(mounted.system.host.url) as engine:
        images = {kind: await load(engine, name, marked(INPUTS[kind](), unique)) for kind, name in names.items()}
    done = mounted.system.cli("images", "push", *names.values())
    assert done.status == 0, done.talk
    expected = {kind: told(files_of(mounted.system.host, name)) for kind, name in names.items()}
    wanted = {
        range_id: {kind: name for kind, name in names.items() if kind not in LEFT_OUT.get(range_id, ())}
        for range_id in RANGES
    }
    begun = {range_id: mounted.begin(range_id, *wanted[range_id].values()) for range_id in RANGES}
    for range_id, pulled in RANGES.items():
        ended = mounted.ended(begun[range_id], seconds=180)
        outcomes = dict(zip(wanted[range_id], ended.images, strict=True))
        ways = {kind: (one.how, one.not_mounted and one.not_mounted.message) for kind, one in outcomes.items()}
        for kind, name in wanted[range_id].items():
            how, why = ways[kind]
            if kind in pulled:
                assert how == "pulled", (range_id, ways)
                assert pulled[kind] in (why or ""), (range_id, ways)
            else:
                assert (how, why) == ("mounted", None), (range_id, kind, ways, logs_of(mounted.system))
            engine_of = mounted.system.ranges[range_id]
            assert told(files_of(engine_of, name)) == expected[kind], (range_id, kind)
            archive = mounted.folder / "saved.tar"
            engine_of.docker("save", "--output", str(archive), name)
            assert saved_layers(archive) == set(images[kind].diff_ids), (range_id, kind)
        engine_of.docker("rmi", *wanted[range_id].values())
        mounted.deploy(range_id, BASE)  # an agent looks for unused layers when a transfer has ended
    layers = {diff_id.removeprefix("sha256:") for image in images.values() for diff_id in image.diff_ids}
    for range_id in RANGES:
        shown, root = mounted.system.lab.shown(range_id), mounted.system.ranges[range_id].root

        def left(shown: Path = shown, root: Path = root) -> set[str]:
            folders = [one for kind in ("layers", "blobs", "splits") for one in names_in(shown / kind)]
            return layers & {name.partition(".")[0] for name in (*folders, *linked(root))}

        assert poll(lambda: left() == set(), seconds=90), (range_id, left(), logs_of(mounted.system))


def test_a_container_sees_what_one_on_the_host_sees(mounted: Scene) -> None:
    """Mode, owner, time, attributes, devices, hard and symbolic links and bytes: on each engine, for a pick of the
    cells that `python -m bench matrix` runs.
    """
    system, program = mounted.system, keeper(mounted.system.lab)
    name = f"{mounted.name}:1"
    import_base(system.host, name)
    expected = seen(system.host, name, program)
    begun = {range_id: mounted.begin(range_id, name) for range_id in system.ranges}
    for range_id, deployment_id in begun.items():
        (image,) = mounted.ended(deployment_id).images
        assert (image.how, image.not_mounted) == ("mounted", None), (range_id, logs_of(system))
        assert differences(expected, seen(system.ranges[range_id], name, program)) == [], range_id
    assert expected["data/able"].attributes[0][0] == "security.capability"
    assert expected["bin/tool"].links == ("bin/hard", "bin/tool")
