"""Compatibility matrix: every host store to every range store, over every path, with every kind of difference.

`python -m bench matrix [--hosts KIND,…] [--ranges KIND,…]`. Each kind of host engine gets a system of its own with a
range of each kind; each image goes to all ranges at once. A cell is right if the image came as it was to come, with no
layer more than that takes, and the range's engine gives out the same files (`docker export`) as the host's. Where the
image's layers are mounted, or others are on top of such ones, a container in the range also sees the same files as one
on the host, to the nanosecond and the last attribute (`bench.matrix.files`).

A host on a containerd store has its layers compressed, and so has the registry: those are unpacked on the host and
mounted like the others.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.matrix.content import content_digest, import_base, layer_file
from bench.matrix.files import differences, keeper, seen
from bench.matrix.report import Cell, Sent, Way, table
from deploy.lab import EngineServer, Lab
from deploy.lab.erofs_tools import mkfs_erofs
from deploy.lab.logbook import LogBook
from deploy.lab.role_server import RoleServer
from deploy.lab.system import System
from deploy.machine.commands import MachineError
from deploy.machine.polling import poll
from events.messages import AgentStarted

#: Kind → version (None: the machine's own), containerd store.
KINDS: Mapping[str, tuple[str | None, bool]] = {
    "20.10": (None, False),
    "26.1": ("26.1", False),
    "28.5": ("28.5", False),
    "28.5 containerd": ("28.5", True),
}
#: What is said about an image beside its layers: config, manifest, the tar's own blocks.
_DESCRIPTION_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Scene:
    """An image to send: over which way, what of it the ranges lack, and how it is made out of `base`."""

    way: Way
    sent: Sent
    image: str
    base: str = ""
    step: str = ""


#: In this order: each finds in the ranges what those before it brought. The registry runs for `registry` and `mounted`,
#: the layer-mounter for `mounted` alone.
SCENES = (
    Scene("registry", "everything", "a:1", "base-a:1", "COPY layer /one"),
    Scene("registry", "nothing", "a:1"),
    Scene("registry", "new layer", "a:2", "a:1", "COPY layer /two"),
    Scene("registry", "new config", "a:3", "a:2", "LABEL three=yes"),
    Scene("full tar", "everything", "b:1", "base-b:1", "COPY layer /one"),
    Scene("thin tar", "nothing", "b:1"),
    Scene("thin tar", "new layer", "b:2", "b:1", "COPY layer /two"),
    Scene("thin tar", "new config", "b:3", "b:2", "LABEL three=yes"),
    Scene("thin tar", "new layer on pulled ones", "a:4", "a:3", "COPY layer /four"),
    Scene("registry", "new layer on loaded ones", "a:6", "a:4", "COPY layer /six"),
    Scene("mounted", "everything", "c:1", "base-c:1", "COPY layer /one"),
    Scene("mounted", "nothing", "c:1"),
    Scene("mounted", "new layer", "c:2", "c:1", "COPY layer /two"),
    Scene("mounted", "new config", "c:3", "c:2", "LABEL three=yes"),
    Scene("mounted", "new layer on pulled ones", "a:5", "a:3", "COPY layer /five"),
    Scene("registry", "new layer on mounted ones", "c:4", "c:3", "COPY layer /four"),
    Scene("thin tar", "new layer on mounted ones", "c:5", "c:4", "COPY layer /five"),
)
_UP_SECONDS = 120


def main(argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench matrix", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", default=",".join(KINDS), help="kinds of host engine (%(default)s)")
    parser.add_argument("--ranges", default=",".join(KINDS), help="kinds of range engine (%(default)s)")
    options = parser.parse_args(list(argv))
    hosts, ranges = options.hosts.split(","), options.ranges.split(",")
    unknown = sorted({*hosts, *ranges} - set(KINDS))
    if unknown:
        parser.error(f"no such kind of engine: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
        for number, host in enumerate(hosts):
            sys.stderr.write(f"from {host}\n")
            with Lab(Path(folder, str(number))) as lab, mkfs_erofs(lab.cache) as program:
                for cell in _from_host(lab, host, ranges, program):
                    sys.stderr.write(f"  {cell.line()}\n")
                    cells.append(cell)
    sys.stderr.write("\n" + table(cells) + "\n")
    failed = sum(cell.problem is not None for cell in cells)
    return {
        "cells": len(cells),
        "failed": failed,
        "ok": failed == 0 and len(cells) == len(hosts) * len(ranges) * len(SCENES),
        "rows": [cell.row() for cell in cells],
    }


def _from_host(lab: Lab, host: str, kinds: Sequence[str], mkfs: Path) -> Iterator[Cell]:
    """All cells of one kind of host engine."""
    assert lab.layers.is_dir()  # made before the engines start
    # Range ids are parts of keys and URLs, so a plain word stands for a kind.
    names = [f"range-{number}" for number in range(len(kinds))]
    source = _engine(lab, "host", host)
    ranges = {name: _engine(lab, name, kind, lab.shown(name)) for name, kind in zip(names, kinds, strict=True)}
    system = System(lab=lab, redis=lab.redis(), registry=lab.registry(), host=source, ranges=ranges, mkfs_erofs=mkfs)
    system.services()
    mounter = system.services("layer-mounter", name="mounter")
    for range_id in ranges:
        system.agent(range_id)
    for name in ("base-a:1", "base-b:1", "base-c:1"):
        import_base(source, name)
    with system.logbook() as book:
        _wait(lambda: _able(system, book) == set(ranges), "the ranges are not shown layers")
        for scene in SCENES:
            _arrange(system, book, mounter, scene.way)
            if scene.base:
                _build(lab, source, scene)
            yield from _cells(system, scene, host, kinds)


def _able(system: System, book: LogBook) -> set[str]:
    """Ranges whose agents said that their engines take mounted layers."""
    outboxes = {system.streams.outbox(range_id): "0-0" for range_id in system.ranges}
    return {message.range_id for message in book.find(AgentStarted, outboxes, lambda m: m.mounts_layers)}


def _arrange(system: System, book: LogBook, mounter: RoleServer, way: Way) -> None:
    """Have registry and layer-mounter run or not, as this way needs it."""
    for server, runs in ((system.registry, way in {"registry", "mounted"}), (mounter, way == "mounted")):
        if runs:
            server.start()
        else:
            server.stop()
    _wait(lambda: book.mounts() == (way == "mounted"), "the layer-mounter's heartbeat is not as it should be")


def _wait(holds: Callable[[], bool], why_not: str) -> None:
    if not poll(holds, seconds=_UP_SECONDS):
        raise MachineError(why_not)


def _cells(system: System, scene: Scene, host: str, kinds: Sequence[str]) -> Iterator[Cell]:
    """One scene, to all ranges at once."""
    wanted = content_digest(system.host, scene.image)
    files = seen(system.host, scene.image, keeper(system.lab)) if _is_on_mounts(scene) else None
    asked = [("deploy", range_id, scene.image, "--timeout", "120") for range_id in system.ranges]
    answers = system.cli_together(asked, seconds=150)
    for engine, kind, said in zip(system.ranges.values(), kinds, answers, strict=True):
        image = said.data["images"][0] if said.status == 0 else {}
        problem = (
            f"exit status {said.status}"
            if said.status
            else _wrong(scene, image, engine, wanted, KINDS[host][1], KINDS[kind][1])
        )
        if files is not None and problem is None:
            problem = "; ".join(differences(files, seen(engine, scene.image, keeper(system.lab)))) or None
        yield Cell(
            host=host,
            range=kind,
            way=scene.way,
            sent=scene.sent,
            how=image.get("how", "failed"),
            received_bytes=image.get("sent_bytes", 0),
            layers_reused=image.get("layers_reused", 0),
            layers_total=image.get("layers_total", 0),
            seconds=round(image.get("seconds", 0.0), 3),
            problem=f"{problem} ({' '.join(said.talk.split())})" if problem else None,
        )


def _is_on_mounts(scene: Scene) -> bool:
    return scene.way == "mounted" or scene.sent == "new layer on mounted ones"


def _engine(lab: Lab, name: str, kind: str, shown: Path | None = None) -> EngineServer:
    version, containerd_store = KINDS[kind]
    return lab.engine(name, version=version, containerd_store=containerd_store, shown=shown)


def _build(lab: Lab, host: EngineServer, scene: Scene) -> None:
    """On the host alone: the deployment asks for the push."""
    with ExitStack() as stack:
        context = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=lab.folder, prefix="context-")))
        layer_file(context / "layer", scene.image)
        (context / "Dockerfile").write_text(f"FROM {scene.base}\n{scene.step}\n")
        host.docker("build", "--quiet", "--tag", scene.image, str(context))


def _wrong(  # noqa: PLR0917
    scene: Scene, image: Mapping[str, Any], engine: EngineServer, wanted: str, compressed: bool, by_blob: bool
) -> str | None:
    """Why the cell is not right, None if it is. `compressed`: the host has its layers so. `by_blob`: so is the range's
    store, which has raw what came by tar.
    """
    how, total = image["how"], image["layers_total"]
    came, reused = image.get("sent_bytes", 0), image.get("layers_reused", 0)
    mounts = scene.way == "mounted"
    pulls = not scene.way.endswith("tar") and scene.sent != "new config"  # an archive of the config alone is as small
    on_loaded = scene.sent == "new layer on loaded ones"
    if on_loaded and compressed and by_blob:
        pulls = False  # the range's engine would leave out the blob of the layer that came by tar
    sent = "mounted" if mounts else "pulled" if pulls else "loaded"
    expected = "present" if scene.sent == "nothing" else sent
    lacked = 0 if mounts else {"everything": total, "nothing": 0, "new config": 0}.get(scene.sent, 1)
    if on_loaded and not by_blob:
        lacked = 2  # a classic store knows no blob of the layer that came by tar, so it is pulled again
    why_not = (image.get("not_mounted") or {}).get("message", "")
    if why_not:
        return f"it was not mounted: {why_not}"
    if how != expected:
        return f"came as {how}, not {expected}"
    if total - reused != lacked:
        return f"{total - reused} of {total} layers were sent, not {lacked}"
    if lacked == 0 and came > _DESCRIPTION_BYTES:
        return f"{came} bytes were sent for no layer"
    try:
        found = content_digest(engine, scene.image)
    except MachineError as problem:
        return f"its content cannot be read: {problem}"
    return None if found == wanted else "the range's engine gives other content than the host's"
