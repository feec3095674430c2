"""Mounted layers in the Compose stack: the shared folder in which the layer-mounter mounts, and a range's part of it.

    FOLDER/layers            mounts of the layer-mounter, in a mount with shared propagation (docs/mounted-layers.md)
    FOLDER/layers/ranges/ID  what range ID sees of it, bound into its container with `rslave`

The engine binds folders in its own mount namespace, which need not be this process's.
"""

from __future__ import annotations

import re
from pathlib import Path

from deploy.machine.commands import MachineError, need, run

#: Where a range's container has its part (CYROID_SHOWN_LAYERS).
IN_THE_RANGE = "/run/cyroid-layers"
_OCTAL = re.compile(r"\\([0-7]{3})")


def range_options(data: Path, name: str) -> tuple[str, ...]:
    """Options of `docker run` that show range `name` its layers while it runs."""
    bind = f"type=bind,source={data}/layers/ranges/{name},target={IN_THE_RANGE},bind-propagation=rslave"
    return ("--mount", bind, "--env", f"CYROID_SHOWN_LAYERS={IN_THE_RANGE}")


def share(data: Path, process: int) -> None:
    """Make FOLDER/layers shared in the mount namespace of `process`, if it is not. Raises MachineError."""
    folder = data / "layers"
    (folder / "ranges").mkdir(parents=True, exist_ok=True)
    if is_shared(mountinfo(process), folder):
        return
    _in_namespace(process, "mount", "--bind", str(folder), str(folder))
    _in_namespace(process, "mount", "--make-shared", str(folder))


def unmount_all(data: Path, process: int) -> None:
    """Take away every mount at and below FOLDER/layers. Raises MachineError."""
    while points := mounts_below(mountinfo(process), data / "layers"):
        # The outermost with all that is mounted below it; looked up anew, as others go with it.
        _in_namespace(process, "umount", "--lazy", str(min(points, key=lambda point: len(point.parts))))


def mountinfo(process: int) -> str:
    """/proc/PID/mountinfo. Raises MachineError where it may not be read."""
    try:
        return Path(f"/proc/{process}/mountinfo").read_text(errors="surrogateescape")
    except OSError as problem:
        raise MachineError(f"the engine's mounts cannot be read ({problem.strerror}): run this as root") from problem


def is_shared(table: str, folder: Path) -> bool:
    """Whether the mount that `folder` lies in has shared propagation. `table` is a mountinfo."""
    inside = [(len(point.parts), shared) for point, shared in _mounts(table) if point in (folder, *folder.parents)]
    deepest = max((depth for depth, _ in inside), default=0)
    return next((shared for depth, shared in reversed(inside) if depth == deepest), False)


def mounts_below(table: str, folder: Path) -> list[Path]:
    """Mount points at or below `folder`, in the order in which they were made."""
    return [point for point, _ in _mounts(table) if point == folder or folder in point.parents]


def _mounts(table: str) -> list[tuple[Path, bool]]:
    found = []
    for line in table.splitlines():
        words = line.partition(" - ")[0].split(" ")
        point = _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), words[4])
        found.append((Path(point), any(word.startswith("shared:") for word in words[6:])))
    return found


def _in_namespace(process: int, *command: str) -> None:
    # The namespace of processes as well: umount looks into /proc, which the engine may have of its own.
    run([need("nsenter", "util-linux"), "--mount", "--pid", "--target", str(process), "--", *command])
