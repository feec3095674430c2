"""Compatibility matrix: every host store to every range store, over every path, with every kind of difference.

`python -m bench matrix [--hosts KIND,…] [--ranges KIND,…]`. Each kind of host engine gets a system of its own with a
range of each kind; each image goes to all ranges at once. A cell is right if the image came as it was to come, with no
layer more than that takes, and the range's engine gives out the same files (`docker export`) as the host's.

A containerd store proves that it has an image by the manifest's digest, which only the registry knows: asked again with
the registry stopped, such a range is sent the config once more, and no layer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.matrix.content import content_digest, import_base, layer_file
from bench.matrix.report import Cell, Sent, Way, table
from deploy.lab import EngineServer, Lab
from deploy.lab.system import System
from deploy.machine.commands import MachineError

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


#: In this order: each finds in the ranges what those before it brought. The registry stops before the first tar.
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
)


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
            with Lab(Path(folder, str(number))) as lab:
                for cell in _from_host(lab, host, ranges):
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


def _from_host(lab: Lab, host: str, kinds: Sequence[str]) -> Iterator[Cell]:
    """All cells of one kind of host engine."""
    source = _engine(lab, "host", host)
    # Range ids are parts of keys and URLs, so a plain word stands for a kind.
    ranges = {f"range-{number}": _engine(lab, f"range-{number}", kind) for number, kind in enumerate(kinds)}
    system = System(lab=lab, redis=lab.redis(), registry=lab.registry(), host=source, ranges=ranges)
    system.services()
    for range_id in ranges:
        system.agent(range_id)
    for name in ("base-a:1", "base-b:1"):
        import_base(source, name)
    for scene in SCENES:
        if scene.way != "registry" and system.registry.running:
            system.registry.stop()
        if scene.base:
            _build(lab, source, scene)
        wanted = content_digest(source, scene.image)
        asked = [("deploy", range_id, scene.image, "--timeout", "120") for range_id in ranges]
        for engine, kind, said in zip(ranges.values(), kinds, system.cli_together(asked, seconds=150), strict=True):
            image = said.data["images"][0] if said.status == 0 else {}
            problem = (
                f"exit status {said.status}" if said.status else _wrong(scene, image, engine, wanted, KINDS[kind][1])
            )
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


def _engine(lab: Lab, name: str, kind: str) -> EngineServer:
    version, containerd_store = KINDS[kind]
    return lab.engine(name, version=version, containerd_store=containerd_store)


def _build(lab: Lab, host: EngineServer, scene: Scene) -> None:
    """On the host alone: the deployment asks for the push."""
    with ExitStack() as stack:
        context = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=lab.folder, prefix="context-")))
        layer_file(context / "layer", scene.image)
        (context / "Dockerfile").write_text(f"FROM {scene.base}\n{scene.step}\n")
        host.docker("build", "--quiet", "--tag", scene.image, str(context))


def _wrong(
    scene: Scene, image: Mapping[str, Any], engine: EngineServer, wanted: str, containerd_store: bool
) -> str | None:
    """Why the cell is not right, None if it is."""
    how, total = image["how"], image["layers_total"]
    came, reused = image.get("sent_bytes", 0), image.get("layers_reused", 0)
    unproven = containerd_store and scene.way != "registry"
    there = scene.sent == "nothing" and not unproven
    pulls = scene.way == "registry" and scene.sent != "new config"  # an archive of the config alone is as small
    expected = "present" if there else "pulled" if pulls else "loaded"
    lacked = {"everything": total, "nothing": 0, "new config": 0}.get(scene.sent, 1)
    if how != expected:
        return f"came as {how}, not {expected}"
    if total - reused != lacked:
        return f"{total - reused} of {total} layers were sent, not {lacked}"
    if scene.sent in ("nothing", "new config") and came > _DESCRIPTION_BYTES:
        return f"{came} bytes were sent for no layer"
    try:
        found = content_digest(engine, scene.image)
    except MachineError as problem:
        return f"its content cannot be read: {problem}"
    return None if found == wanted else "the range's engine gives other content than the host's"
