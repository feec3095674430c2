"""Uploads that nobody goes on with, in the registry's storage."""

from __future__ import annotations

import os
from pathlib import Path

from services.collector.layout import RegistryLayout
from services.collector.uploads import ABANDONED_SECONDS, PurgedUploads, purge_uploads

NOW = 10 * ABANDONED_SECONDS


def _upload(root: Path, repository: str, name: str, *, idle_seconds: float) -> Path:
    folder = root / "docker/registry/v2/repositories" / repository / "_uploads" / name
    (folder / "hashstates/sha256").mkdir(parents=True)
    for place, content in (("data", b"x" * 1000), ("startedat", b"then"), ("hashstates/sha256/0", b"state")):
        (folder / place).write_bytes(content)
        os.utime(folder / place, (0, 0))
    os.utime(folder / "data", (NOW - idle_seconds, NOW - idle_seconds))
    return folder


def test_an_upload_to_which_nothing_comes_is_removed(tmp_path: Path) -> None:
    """However long ago it was started; one that still grows, and every other file, stays."""
    old = _upload(tmp_path, "team/app", "1", idle_seconds=ABANDONED_SECONDS)
    growing = _upload(tmp_path, "team/app", "2", idle_seconds=ABANDONED_SECONDS - 1)
    other = _upload(tmp_path, "db", "3", idle_seconds=2 * ABANDONED_SECONDS)
    tag = tmp_path / "docker/registry/v2/repositories/db/_manifests/tags/1/current/link"
    tag.parent.mkdir(parents=True)
    tag.write_text("sha256:" + "0" * 64)
    os.utime(tag, (0, 0))
    layout = RegistryLayout(tmp_path)
    assert purge_uploads(layout, now=NOW) == PurgedUploads(uploads=2, freed_bytes=2 * 1009)
    assert [folder.exists() for folder in (old, growing, other)] == [False, True, False]
    assert tag.exists()
    assert purge_uploads(layout, now=NOW) == PurgedUploads(0, 0)


def test_a_registry_without_content_has_none(tmp_path: Path) -> None:
    """Before the first push there is no such folder."""
    assert purge_uploads(RegistryLayout(tmp_path), now=NOW) == PurgedUploads(0, 0)
