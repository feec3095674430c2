"""What the stack is for, on four engines at once: deploy, again, a change, a way around, one service away at a time."""

from __future__ import annotations

import io
import json
import tarfile
import time

import pytest

from deploy.lab.base_image import base_image_tar
from deploy.lab.laboratory import default_cache
from tests.stack.conftest import RANGES, Stack

ENDS = ("deployment.succeeded.v1", "deployment.failed.v1", "deployment.cancelled.v1")
LOG_BOOK = ("XRANGE", "cyroid:deployments", "-", "+")


def context(content: str) -> bytes:
    """A build whose last layer is small and whose layer below is 8 MB."""
    lines = [
        "FROM base:1",
        "RUN dd if=/dev/zero of=/blob bs=1M count=8 2>/dev/null",
        f"RUN echo {content} > /etc/content",
    ]
    dockerfile = "\n".join([*lines, 'CMD ["cat", "/etc/content"]', ""]).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile)
        archive.addfile(entry, io.BytesIO(dockerfile))
    return packed.getvalue()


def deploy(stack: Stack, name: str, *images: str) -> list[dict[str, object]]:
    (outcome,) = stack.cyroid("deploy", name, *images, "--timeout", "180")
    assert outcome["type"] == "deployment.succeeded.v1"
    found: list[dict[str, object]] = outcome["images"]
    return found


def content(stack: Stack, name: str, image: str) -> str:
    """What a container of the image says, run by the range's own engine."""
    return stack.in_range(name, f"docker run --rm --network none {image}").stdout.decode().strip()


@pytest.fixture(scope="module")
def images(stack: Stack) -> list[str]:
    """One built, one imported, one promoted."""
    stack.docker("import", str(base_image_tar(default_cache())), "base:1")
    stack.cyroid("images", "build", "-", "-t", "built:1", stdin=context("one"))
    stack.docker("tag", "built:1", "elsewhere:1")
    archive = stack.run("docker", "save", "elsewhere:1").stdout
    stack.docker("rmi", "elsewhere:1")
    stack.cyroid("images", "import", "-", "--as", "imported:1", stdin=archive)
    stack.docker("run", "--name", "changed", "--network", "none", "built:1", "sh", "-c", "echo promoted > /etc/content")
    stack.cyroid("images", "promote", "changed", "promoted:1", "--change", 'CMD ["cat", "/etc/content"]')
    stack.docker("rm", "changed")
    return ["built:1", "imported:1", "promoted:1"]


def test_every_range_gets_every_image(stack: Stack, images: list[str]) -> None:
    """Pulled into four engines of three generations and both stores; a container of each says the right thing."""
    for name in RANGES:
        assert {image["how"] for image in deploy(stack, name, *images)} <= {"pulled", "retagged"}
        assert [content(stack, name, image) for image in images] == ["one", "one", "promoted"]


def test_again_sends_nothing(stack: Stack, images: list[str]) -> None:
    """What is there is found there."""
    for name in RANGES:
        for image in deploy(stack, name, *images):
            assert image["how"] in ("present", "retagged")
            assert not image.get("sent_bytes")


def test_a_change_sends_its_layer_alone(stack: Stack, images: list[str]) -> None:
    """The same tag, rebuilt: the 8 MB below are not sent again, and the content is the new one."""
    stack.cyroid("images", "build", "-", "-t", images[0], stdin=context("two"))
    for name in RANGES:
        (image,) = deploy(stack, name, images[0])
        assert image["how"] == "pulled"
        assert int(str(image["sent_bytes"])) < 1_000_000
        assert content(stack, name, images[0]) == "two"


def test_without_the_registry_it_goes_by_tar(stack: Stack, images: list[str]) -> None:
    """Both registries stopped: the deployment still succeeds, with the layers that are missing."""
    stack.service("stop", "registry", "registry-pull")
    try:
        stack.cyroid("images", "build", "-", "-t", "away:1", stdin=context("three"))
        for name in RANGES:
            (image,) = deploy(stack, name, "away:1")
            assert image["how"] == "loaded"
            assert content(stack, name, "away:1") == "three"
    finally:
        stack.service("start", "registry", "registry-pull")


@pytest.mark.parametrize("service", ["redis", "registry-pusher", "deployer", "tar-server", "tracker", "api"])
def test_a_service_that_stops_under_way_delays_and_loses_nothing(service: str, stack: Stack, images: list[str]) -> None:
    """A deployment asked for, the service stopped and started: every range ends with the right content."""
    speaker = "deployer" if service == "api" else "api"
    image = f"turn-{service}:1"
    stack.cyroid("images", "build", "-", "-t", image, stdin=context(service), service=speaker)
    ids = [f"{service}-{name}" for name in RANGES]
    ask = "\n".join(
        f"cyroid-images deploy {name} {image} --no-wait --id {identity}"
        for name, identity in zip(RANGES, ids, strict=True)
    )
    # All asked for from one shell, and nobody waits between the last question and the stop.
    stack.docker("exec", f"cyroid-images-{speaker}-1", "sh", "-ec", ask)
    stack.service("kill" if service != "redis" else "stop", service)
    stack.service("start", service)
    for name, identity in zip(RANGES, ids, strict=True):
        _until_succeeded(stack, identity)
        assert content(stack, name, image) == service


def test_a_range_made_anew_is_filled_again(stack: Stack, images: list[str]) -> None:
    """The same range id with an empty engine: nothing is taken for present, everything is sent."""
    stack.tool("ranges", "rm", "r28")
    stack.tool("ranges", "add", "r28", "--engine", "28.5")
    assert stack.in_range("r28", "docker images --quiet").stdout == b""
    (image,) = deploy(stack, "r28", images[2])
    assert image["how"] == "pulled"
    assert content(stack, "r28", images[2]) == "promoted"


def test_the_log_book_is_readable_in_the_redis_container(stack: Stack, images: list[str]) -> None:
    """`redis-cli` there needs no password typed, and shows who said what about which image."""
    said = stack.docker("exec", "cyroid-images-redis-1", "redis-cli", "XRANGE", "cyroid:images", "-", "+")
    for event in ("image.built.v1", "image.imported.v1", "image.promoted.v1", "image.pushed.v1"):
        assert event in said


def test_all_images_fit_in_one_file(stack: Stack) -> None:
    """The bundle for a host without a network holds every image of the stack, shared layers once."""
    bundle = stack.data.parent / "bundle.tar"
    stack.tool("images", "--base", "debootstrap", "--save", str(bundle))
    with tarfile.open(bundle) as archive:
        member = archive.extractfile("manifest.json")
        assert member is not None
        names = {name for image in json.loads(member.read()) for name in image["RepoTags"]}
        layers = [name for name in archive.getnames() if name.endswith("/layer.tar")]
    assert {"cyroid/images:latest", "cyroid/registry:2", "cyroid/redis:7", "cyroid/range:28.5"} <= names
    assert len(layers) == len(set(layers))
    bundle.unlink()


def _until_succeeded(stack: Stack, identity: str) -> None:
    """Bounded: read from the log book, as the deployment's outcome is said there exactly once."""
    deadline = time.monotonic() + 180
    while True:
        said = stack.docker("exec", "cyroid-images-redis-1", "redis-cli", "--json", *LOG_BOOK)
        kinds = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in json.loads(said)]
        ends = [kind for kind in kinds if json.loads(kind["data"])["deployment_id"] == identity]
        types = [end["type"] for end in ends if end["type"] in ENDS]
        if types:
            assert types == ["deployment.succeeded.v1"], ends[-1]["data"]
            return
        assert time.monotonic() < deadline, f"{identity} has not ended"
        time.sleep(1.0)
