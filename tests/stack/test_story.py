"""The stack on five engines at once: deploy, repeat, change, fallback, a recreated range."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from typing import IO

from deploy.machine.polling import poll
from tests.stack.listing import XATTR
from tests.stack.operator import PATIENCE_SECONDS, PLAIN, RANGES, Stack, context


def sha256(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := content.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def test_every_range_gets_every_image(stack: Stack, images: list[str]) -> None:
    """Asked for at once, pulled into four engines of three generations and both stores; a container of each says the
    right thing, and its layers are the host's."""
    for arrived in stack.deploy("first", list(RANGES), *images).values():
        assert {image["how"] for image in arrived} <= {"pulled", "retagged"}
    for name in RANGES:
        assert [stack.content(name, image) for image in images] == ["one", "one", "promoted"]


def test_every_file_arrives_as_it_was(stack: Stack, images: list[str]) -> None:
    """Type, mode, owner, link, digest and attributes of each file in each range are those on the host."""
    stack.deploy("hard", list(RANGES), "hard:1")
    there = stack.listing(None, "hard:1")
    assert there["hard/link-0"][0] == "1"  # the control: the list tells hard links, modes and attributes
    assert there["hard/setuid"][1] == "0o4755"
    assert [name for name, _ in there["hard/capable"][6]] == [XATTR]
    for name in RANGES:
        assert stack.layers(name, "hard:1") == stack.layers(None, "hard:1")
        assert stack.listing(name, "hard:1") == there


def test_a_stock_engine_is_filled_through_its_url(stack: Stack, images: list[str], plain: str) -> None:
    """A range without an agent, driven from outside over TCP: the same images, the same content, nothing sent again."""
    first = stack.deploy("stock", [plain], *images, "hard:1")[plain]
    assert {image["how"] for image in first} <= {"pulled", "retagged"}
    assert [stack.content(plain, image) for image in images] == ["one", "one", "promoted"]
    assert stack.listing(plain, "hard:1") == stack.listing(None, "hard:1")
    again = stack.deploy("stock-again", [plain], *images)[plain]
    assert {image["how"] for image in again} <= {"present", "retagged"}


def test_again_sends_nothing(stack: Stack, images: list[str]) -> None:
    """What is there is found there."""
    for arrived in stack.deploy("again", list(RANGES), *images).values():
        for image in arrived:
            assert image["how"] in ("present", "retagged")
            assert not image.get("sent_bytes")


def test_a_change_sends_its_layer_alone(stack: Stack, images: list[str], plain: str) -> None:
    """The same tag, rebuilt: the 8 MB below are not sent again, and the content is the new one."""
    stack.cyroid("images", "build", "-", "-t", images[0], stdin=context("two"))
    for name, (image,) in stack.deploy("change", [*RANGES, plain], images[0]).items():
        assert image["how"] == "pulled"
        assert int(image["sent_bytes"]) < 1_000_000
        assert stack.content(name, images[0]) == "two"


def test_without_the_registry_it_goes_by_tar(stack: Stack, images: list[str], plain: str) -> None:
    """Both registries stopped: the deployment still succeeds, with the layers that are missing."""
    stack.service("stop", "registry", "registry-pull")
    try:
        stack.cyroid("images", "build", "-", "-t", "away:1", stdin=context("three"))
        for name, (image,) in stack.deploy("away", [*RANGES, plain], "away:1").items():
            assert image["how"] == "loaded"
            assert stack.content(name, "away:1") == "three"
    finally:
        stack.service("start", "registry", "registry-pull")


def test_a_range_made_anew_is_filled_again(stack: Stack, images: list[str]) -> None:
    """The same range id with an empty engine: what it should have is sent again, by itself and when asked for."""
    stack.in_range("r28", f"docker tag {images[2]} only-there:1")
    stack.tool("ranges", "rm", "r28")
    stack.tool("ranges", "add", "r28", "--engine", "28.5")
    there = "docker images --format '{{.Repository}}:{{.Tag}}'"
    assert b"only-there:1" not in stack.in_range("r28", there).stdout
    back = poll(
        lambda: set(images) <= set(stack.in_range("r28", there).stdout.decode().split()),
        seconds=PATIENCE_SECONDS,
        every=1.0,
    )
    assert back, stack.in_range("r28", there).stdout
    assert stack.content("r28", images[2]) == "promoted"
    stack.cyroid("images", "build", "-", "-t", "anew:1", stdin=context("anew"))
    ((image,),) = stack.deploy("anew", ["r28"], "anew:1").values()
    assert image["how"] == "pulled"
    assert stack.content("r28", "anew:1") == "anew"


def test_the_log_book_is_readable_in_the_redis_container(stack: Stack, images: list[str]) -> None:
    """`redis-cli` there needs no password typed, and shows who said what about which image."""
    said = stack.docker("exec", "cyroid-images-redis-1", "redis-cli", "XRANGE", "cyroid:images", "-", "+")
    for event in ("image.built.v1", "image.imported.v1", "image.promoted.v1", "image.pushed.v1"):
        assert event in said


def test_all_images_fit_in_one_file(stack: Stack) -> None:
    """The bundle for a host without a network holds every image of the stack, the content of no layer twice."""
    bundle = stack.data.parent / "bundle.tar"
    stack.tool("images", "--base", "debootstrap", "--save", str(bundle))
    digests: Counter[str] = Counter()
    names: set[str] = set()
    users: Counter[str] = Counter()
    with tarfile.open(bundle) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is not None and member.name == "manifest.json":
                listed = json.loads(content.read())
                names = {name for image in listed for name in image["RepoTags"]}
            elif content is not None and member.size > 1_000_000:
                digests[sha256(content)] += 1
    bundle.unlink()
    for name in names:
        users.update(set(stack.layers(None, name)))
    assert {"cyroid/images:latest", "cyroid/registry:2", "cyroid/redis:7", "cyroid/range:28.5"} <= names
    assert users.most_common(1)[0][1] > 1  # the control: there are layers to be shared
    assert digests
    assert digests.most_common(1)[0][1] == 1


def test_the_stock_engine_has_no_agent(stack: Stack, plain: str) -> None:
    """The control: nothing but an engine runs in it."""
    said = stack.in_range(PLAIN, "ps -eo args").stdout.decode()
    assert "dockerd" in said
    assert "cyroid-images" not in said
