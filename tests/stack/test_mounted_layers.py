"""Mounted layers in the real containers: shown to a range while it runs, and out of its power."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deploy.machine.polling import poll
from tests.stack.operator import Stack, context

RANGE = "r28m"
#: On the classic store: its engine is restarted to take layers.
CLASSIC = "r28k"
CONTAINER = f"cyroid-range-{RANGE}"
MOUNTER = "cyroid-images-layer-mounter-1"
SHOWN = "/run/cyroid-layers/layers"
#: Root in the range tries to change a layer that it is shown; prints what worked. $1 is the layer's folder.
ATTACK = f"""
cd {SHOWN} && layer=$(ls | head -1) && cd / || exit 9
touch {SHOWN}/$layer/new 2>/dev/null && echo wrote
mount -o remount,rw {SHOWN}/$layer 2>/dev/null && touch {SHOWN}/$layer/new 2>/dev/null && echo remounted
mount -o remount,bind,rw {SHOWN}/$layer 2>/dev/null && touch {SHOWN}/$layer/new 2>/dev/null && echo rebound
for blob in /run/cyroid-layers/blobs/*/data; do
    sh -c ": >> $blob" 2>/dev/null && echo appended
    chmod u+w $blob 2>/dev/null && echo chmod
done
grep -o "ranges/[^/ ]*/" /proc/self/mountinfo | grep -v "^ranges/{RANGE}/" && echo others
umount {SHOWN}/$layer && mount -t tmpfs none {SHOWN}/$layer 2>/dev/null; echo own view changed
"""


@pytest.fixture(scope="module")
def mounted(stack: Stack, base: str) -> Iterator[Stack]:
    """The stack with a layer-mounter, and a range on each store that is shown layers."""
    stack.tool("up", "--mount")
    try:
        stack.tool("ranges", "add", RANGE, "--engine", "28.5", "--containerd-store")
        stack.tool("ranges", "add", CLASSIC, "--engine", "28.5")
        yield stack
    finally:
        for name in (RANGE, CLASSIC):
            stack.tool("ranges", "rm", name)
        stack.tool("up", "--no-mount")


def build(stack: Stack, image: str) -> str:
    """The image, in the stack's engine and its registry, whose content is its own name."""
    stack.cyroid("images", "build", "-", "-t", image, stdin=context(image))
    stack.cyroid("images", "push", image)
    return image


def told(listing: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Without the mode of symbolic links, which means nothing and which EROFS keeps as the layer's tar has it."""
    return {name: [kind, None if kind == "2" else mode, *rest] for name, (kind, mode, *rest) in listing.items()}


@pytest.mark.parametrize("name", [RANGE, CLASSIC])
def test_a_range_is_shown_what_it_is_to_have(mounted: Stack, name: str) -> None:
    """No layer is sent; its containers run, and what is built, committed and saved on top is whole."""
    image = build(mounted, f"mounted-{name}:1")
    ((said,),) = mounted.deploy(f"mounted-{name}", [name], image).values()
    assert (said["how"], said.get("not_mounted")) == ("mounted", None), mounted.docker("logs", MOUNTER)
    assert mounted.content(name, image) == image
    assert told(mounted.listing(name, image)) == told(mounted.listing(None, image))
    mounted.in_range(
        name,
        f"printf 'FROM {image}\\nRUN echo more > /more\\n' | docker build -q --network none -t child:1 - &&"
        " docker run --rm --network none child:1 cat /etc/content /more && docker save child:1 | tar -t >/dev/null &&"
        " docker rmi child:1",
    )


def test_containers_run_on_while_a_classic_engine_takes_layers(mounted: Stack) -> None:
    """The engine is another process afterwards, the container the same one."""
    first, second = build(mounted, "mounted-run:1"), build(mounted, "mounted-run:2")
    mounted.deploy("mounted-run", [CLASSIC], first)
    mounted.in_range(CLASSIC, f"docker run --detach --name stays --network none {first} sleep 3600")
    form = "docker inspect --format '{{.State.Pid}} {{.State.StartedAt}}' stays && pidof dockerd"
    before = mounted.in_range(CLASSIC, form).stdout.decode().splitlines()
    ((said,),) = mounted.deploy("mounted-run-2", [CLASSIC], second).values()
    assert (said["how"], said.get("not_mounted")) == ("mounted", None)
    after = mounted.in_range(CLASSIC, form).stdout.decode().splitlines()
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert mounted.content(CLASSIC, second) == second
    mounted.in_range(CLASSIC, "docker rm --force stays")


@pytest.mark.parametrize("name", [RANGE, CLASSIC])
def test_a_range_that_starts_again_has_what_it_had(mounted: Stack, name: str) -> None:
    """Restarted with its engine: the layers are shown again before a container needs them."""
    image, there = build(mounted, f"mounted-restart-{name}:1"), f"cyroid-range-{name}"
    mounted.deploy(f"mounted-restart-{name}", [name], image)
    mounted.docker("restart", there)
    ready = poll(lambda: mounted.in_range(name, "docker version", check=False).returncode == 0, seconds=120, every=1)
    assert ready, mounted.docker("logs", "--tail", "20", there)
    assert mounted.content(name, image) == image


def test_a_layer_mounter_that_is_killed_changes_nothing_for_ranges(mounted: Stack) -> None:
    """What is mounted stays, and the next image is mounted once it is back."""
    first, second = build(mounted, "mounted-kill:1"), build(mounted, "mounted-kill:2")
    mounted.deploy("mounted-kill", [RANGE], first)
    mounted.docker("kill", MOUNTER)
    assert mounted.content(RANGE, first) == first
    mounted.service("start", "layer-mounter")
    ((said,),) = mounted.deploy("mounted-back", [RANGE], second).values()
    assert (said["how"], mounted.content(RANGE, second)) == ("mounted", second)
    assert mounted.content(RANGE, first) == first


def test_root_in_a_range_changes_its_own_view_alone(mounted: Stack) -> None:
    """Writing, remounting and reaching another range's folder fail; what it covers stays whole for the host."""
    image = build(mounted, "mounted-attack:1")
    mounted.deploy("mounted-attack", [RANGE], image)
    said = mounted.in_range(RANGE, ATTACK).stdout.decode().splitlines()
    assert said == ["own view changed"]
    shown = f"/layers/ranges/{RANGE}/layers"
    counts = mounted.docker("exec", MOUNTER, "sh", "-c", f"for one in {shown}/*; do ls -A $one | wc -l; done").split()
    assert counts
    assert "0" not in counts
    mounted.docker("restart", CONTAINER)
    ready = poll(lambda: mounted.in_range(RANGE, "docker version", check=False).returncode == 0, seconds=120, every=1)
    assert ready
    assert mounted.content(RANGE, image) == image


def test_an_image_that_is_removed_gives_its_layers_back(mounted: Stack) -> None:
    """The host unmounts what no image of the range needs any more."""
    image = build(mounted, "mounted-back:1")
    mounted.deploy("mounted-back-1", [RANGE], image)
    layers = {layer.removeprefix("sha256:") for layer in mounted.layers(RANGE, image)}
    others = {layer.removeprefix("sha256:") for layer in mounted.layers(None, "base:1")}

    def shown() -> set[str]:
        return set(mounted.docker("exec", MOUNTER, "ls", f"/layers/ranges/{RANGE}/layers").split())

    own = layers - others
    assert own <= shown()
    mounted.in_range(RANGE, f"docker rmi {image}")
    top = mounted.layers(None, image)[-1].removeprefix("sha256:")
    assert poll(lambda: top not in shown(), seconds=180, every=1)  # the agent looks once a minute
