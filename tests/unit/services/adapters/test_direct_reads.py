"""Direct I/O of mounts: for which blobs, and with which read-ahead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.adapters import direct_reads
from services.adapters.direct_reads import DirectReads


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A sysfs in which the disk below `tmp_path` is a partition of one that reads 4 MiB ahead."""
    number = tmp_path.stat().st_dev
    partition = tmp_path / "sys/devices/pci/disk/partition"
    partition.mkdir(parents=True)
    (partition.parent / "queue").mkdir()
    (partition.parent / "queue/read_ahead_kb").write_text("4096\n")
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / f"sys/dev/block/{os.major(number)}:{os.minor(number)}").symlink_to(partition)
    (tmp_path / "sys/devices/virtual/bdi").mkdir(parents=True)
    return tmp_path / "sys"


@pytest.fixture
def blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(direct_reads, "_reads_blocks", lambda file: True)
    path = tmp_path / "blob"
    path.write_bytes(bytes(2048))
    return path


def test_a_large_blob_gets_the_read_ahead_of_the_disk_of_its_partition(system: Path, blob: Path) -> None:
    """In KiB."""
    assert DirectReads(system, least_bytes=2048).read_ahead_kib(blob) == 4096


def test_what_is_not_large_is_not_read_directly(system: Path, blob: Path) -> None:
    """Nor what is gone."""
    assert DirectReads(system, least_bytes=2049).read_ahead_kib(blob) is None
    assert DirectReads(system, least_bytes=0).read_ahead_kib(blob.with_name("gone")) is None


def test_a_file_system_without_one_disk_is_not_read_directly(system: Path, blob: Path) -> None:
    """Its device has no queue."""
    (system / "devices/pci/disk/queue/read_ahead_kb").unlink()
    assert DirectReads(system, least_bytes=0).read_ahead_kib(blob) is None


def test_a_disk_with_larger_sectors_is_not_read_directly(
    system: Path, blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses a block of 512 bytes, and so would every read of the mount."""

    def refuse(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.undo()
    monkeypatch.setattr(os, "preadv", refuse)
    assert DirectReads(system, least_bytes=0).read_ahead_kib(blob) is None


def test_where_read_ahead_cannot_be_set_nothing_is_read_directly(system: Path, blob: Path) -> None:
    """In small steps that would be slower than through the page cache."""
    (system / "devices/virtual/bdi").rmdir()
    assert DirectReads(system, least_bytes=0).read_ahead_kib(blob) is None


def test_new_mounts_get_at_least_that_read_ahead_once(system: Path) -> None:
    """What reads further ahead is left, and so is what somebody set later."""
    devices = system / "devices/virtual/bdi"
    for name, kib in (("erofs-1", 128), ("erofs-2", 8192), ("7:0", 128)):
        (devices / name).mkdir()
        (devices / name / "read_ahead_kb").write_text(f"{kib}\n")
    reads = DirectReads(system)
    reads.raise_new(4096)
    assert [int((devices / name / "read_ahead_kb").read_text()) for name in ("erofs-1", "erofs-2", "7:0")] == [
        4096,
        8192,
        128,
    ]
    (devices / "erofs-1/read_ahead_kb").write_text("64")
    reads.raise_new(4096)
    assert (devices / "erofs-1/read_ahead_kb").read_text() == "64"
