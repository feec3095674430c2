"""Bad input: one clear line with what to do, an exit status, and nothing left behind."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from events.messages import DeploymentFailed, DeploymentRequested
from tests.e2e.scene import MEGABYTE, Scene

pytestmark = pytest.mark.real


def test_an_image_nobody_has_fails_the_deployment_by_name(scene: Scene) -> None:
    """Neither the host's engine nor the registry has it: the deployment ends as failed and says which image."""
    done = scene.system.cli("deploy", "range-1", f"e2e/{scene.name}:never-built")
    assert done.status == 5
    assert done.data["type"] == "deployment.failed.v1"
    assert f"e2e/{scene.name}:never-built" in done.data["images"][0]["error"]["message"]
    assert done.data["images"][0]["error"]["code"] == "image_not_found"


def test_a_range_nobody_knows_fails_the_deployment(scene: Scene) -> None:
    """No agent of that range ever spoke: it fails after the grace instead of waiting for ever."""
    name = f"e2e/{scene.name}:1"
    scene.build(name, "nowhere")
    ended = scene.ended(scene.begin(f"range-{scene.name}", name))
    assert isinstance(ended, DeploymentFailed)


@pytest.mark.parametrize("reference", ["Upper/Case:1", "a b", "host:5000/", "x" * 300])
def test_a_bad_reference_is_refused_before_anything_happens(scene: Scene, reference: str) -> None:
    """Exit status 2 and nothing on the bus."""
    done = scene.system.cli("deploy", "range-1", reference)
    assert done.status == 2
    assert done.data is None
    assert scene.book.find(DeploymentRequested, scene.mark) == []


def test_a_context_without_a_dockerfile_is_refused(scene: Scene) -> None:
    """The error names the file that is missing."""
    context = scene.folder / "empty"
    context.mkdir()
    done = scene.system.cli("images", "build", str(context), "-t", f"e2e/{scene.name}:1")
    assert done.status == 2
    assert "Dockerfile" in done.talk


def archive_of(scene: Scene, folder: Path) -> Path:
    """A `docker save` archive whose image the host's engine has no more."""
    name = f"e2e/{scene.name}:saved"
    scene.build(name, "saved", bulk_bytes=MEGABYTE, push="never")
    scene.system.host.docker("save", "--output", str(folder / "image.tar"), name)
    scene.system.host.docker("rmi", name)
    return folder / "image.tar"


def test_an_archive_that_is_cut_off_leaves_nothing_behind(scene: Scene) -> None:
    """Exit status 2, one line, no image, no event."""
    whole = archive_of(scene, scene.folder)
    os.truncate(whole, whole.stat().st_size // 2)
    before = scene.system.host.names()
    scene.from_now()
    done = scene.system.cli("images", "import", str(whole))
    assert done.status == 2
    assert whole.name in done.talk
    assert scene.system.host.names() == before
    assert scene.announced() == []


def test_a_tar_that_is_no_image_is_refused(scene: Scene) -> None:
    """A tar of other files is told apart from an image."""
    path = scene.folder / "files.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(__file__, "notes.txt")
    before = scene.system.host.names()
    done = scene.system.cli("images", "import", str(path))
    assert done.status == 2
    assert path.name in done.talk
    assert scene.system.host.names() == before


def test_an_archive_that_is_whole_is_imported_and_deployed(scene: Scene) -> None:
    """The counterpart: the same archive, not cut, arrives in a range."""
    name = f"e2e/{scene.name}:saved"
    whole = archive_of(scene, scene.folder)
    scene.from_now()
    done = scene.system.cli("images", "import", str(whole))
    assert done.status == 0, done.talk
    (image,) = scene.deploy("range-1", name)
    assert image.how == "pulled"
    assert scene.read("range-1", name) == "saved"


def test_without_redis_every_command_says_so(scene: Scene) -> None:
    """Exit status 4 and one line that names Redis; the engine is not asked to do anything."""
    before = scene.system.host.names()
    context = scene.folder / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")
    for arguments in (
        ("images", "build", str(context), "-t", f"e2e/{scene.name}:1"),
        ("deploy", "range-1", f"e2e/{scene.name}:1"),
        ("ranges", "ls"),
    ):
        done = scene.system.cli("--redis-url", "redis://127.0.0.1:9/0", *arguments)
        assert done.status == 4, arguments
        assert "Redis" in done.talk
    assert scene.system.host.names() == before
