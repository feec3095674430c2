"""Checks of this machine: free space on disks, rights on a socket, versions, clocks."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

from services.doctor.findings import Note, Wrong

SPARE_BYTES = 1024**3
NEARLY_FULL = 0.05
OLDEST_ENGINE = (20, 10)
AHEAD_SECONDS = 5.0


def room(folder: Path) -> tuple[Literal["ok", "note", "wrong"], str]:
    """Free space of the disk under `folder`, and whether it is enough. Raises OSError."""
    usage = shutil.disk_usage(folder)
    text = f"{usage.free / 1e9:.1f} GB free"
    if usage.free < SPARE_BYTES:
        return "wrong", f"the disk of {folder} is full: {text} of {usage.total / 1e9:.0f} GB"
    if usage.free < NEARLY_FULL * usage.total:
        return "note", f"the disk of {folder} is nearly full: {text} of {usage.total / 1e9:.0f} GB"
    return "ok", text


def with_free_space(folder: Path, advice: str) -> str:
    """The free space of a disk, as text.

    Raises Wrong or Note where it is little, OSError where the folder does not exist.
    """
    state, text = room(folder)
    if state != "ok":
        raise (Wrong if state == "wrong" else Note)(text, advice)
    return text


def without_rights(url: str) -> tuple[str, str] | None:
    """What is wrong with this user's rights on an engine's socket, and what to do; None for other addresses too."""
    if not url.startswith("unix://"):
        return None
    path = Path(url.removeprefix("unix://"))
    try:
        about = path.stat()
    except PermissionError:
        return f"{path.parent} cannot be entered", f"run as a user who may, or give this one rights on {path.parent}"
    except OSError:
        return None  # not there: the engine's own error says so
    if not stat.S_ISSOCK(about.st_mode):
        return f"{path} is no socket", "correct CYROID_HOST_ENGINE_URL"
    allowed = os.access(path, os.R_OK | os.W_OK)
    return None if allowed else (f"permission denied on {path}, which {_whose(about)}", _how_to_get_in(about))


def _whose(about: os.stat_result) -> str:
    return f"belongs to group {_group_name(about.st_gid)} ({about.st_gid})"


def _how_to_get_in(about: os.stat_result) -> str:
    """Advice for joining the socket's group; never root's own group, or a group that may not write."""
    gid = about.st_gid
    if gid == 0 or not about.st_mode & stat.S_IWGRP:
        return "have the engine give its socket to a group (dockerd --group docker), or run as root"
    joining = f"usermod -aG {_group_name(gid)} USER, then log in again"
    return f"add this user to it ({joining}), or a container: group_add ['{gid}']"


def _group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def too_old(engine_version: str) -> bool:
    """Whether an engine is older than 20.10; False for one that tells no version."""
    numbers = tuple(int(part) for part in re.findall(r"[0-9]{1,6}", engine_version)[:2])
    return bool(numbers) and numbers < OLDEST_ENGINE


def clock_problems(clocks: Mapping[str, datetime], now: datetime, *, late_seconds: float) -> list[str]:
    """Clocks that differ from ours. Each told its time at most `late_seconds` ago."""
    found = []
    for who, at in clocks.items():
        ahead = (at - now).total_seconds()
        if ahead > AHEAD_SECONDS:
            found.append(f"{who} is {ahead:.0f} s ahead")
        elif -ahead > late_seconds + AHEAD_SECONDS:
            found.append(f"{who} is about {-ahead:.0f} s behind")
    return found
