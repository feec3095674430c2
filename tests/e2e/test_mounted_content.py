"""Content of mounted images, file by file: what a container in the range sees is what one on the host sees."""

from __future__ import annotations

import pytest

from services.adapters.engine import DockerEngine
from tests.e2e.scene import Scene
from tests.e2e.test_mounted_layers import saved_layers
from tests.integration.hard_layers import INPUTS, marked
from tests.integration.test_layer_sources import files_of, load

pytestmark = pytest.mark.real

RANGE = "m-28.5"
#: What mkfs.erofs refuses: entries below a symbolic link of the same layer, and tars that end without their end.
NOT_INDEXED = {"behind_a_link", "ends"}
Files = dict[str, tuple[object, ...]]


def told(files: Files) -> Files:
    """Without the mode of symbolic links, which means nothing and which EROFS keeps as the tar has it; times before
    1970 are 1970, as engine 20.10 makes them."""
    return {
        name: (kind, None if kind == b"2" else mode, owner, max(0, int(str(mtime))), *rest)
        for name, (kind, mode, owner, mtime, *rest) in files.items()
    }


@pytest.mark.parametrize("kind", INPUTS)
async def test_hard_layers_are_the_same_files(mounted: Scene, unique: str, kind: str) -> None:
    """Whiteouts, attributes, odd names, repeated and empty layers, 120 of them: seen, and saved byte for byte."""
    name = f"docker.io/{unique}/{kind}:1"
    async with DockerEngine.open(mounted.system.host.url) as engine:
        image = await load(engine, name, marked(INPUTS[kind](), unique))
    done = mounted.system.cli("images", "push", name)
    assert done.status == 0, done.talk
    (outcome,) = mounted.deploy(RANGE, name)
    why = "" if outcome.not_mounted is None else outcome.not_mounted.message
    if kind in NOT_INDEXED:
        assert outcome.how == "pulled"
        assert "mkfs.erofs cannot index" in why, why
    else:
        assert (outcome.how, why) == ("mounted", "")
    ranged = mounted.system.ranges[RANGE]
    assert told(files_of(ranged, name)) == told(files_of(mounted.system.host, name))
    archive = mounted.folder / "saved.tar"
    ranged.docker("save", "--output", str(archive), name)
    assert saved_layers(archive) == set(image.diff_ids)
    ranged.docker("rmi", name)
