"""Mounted layers beyond eight gigabytes on an engine with a classic store."""

from __future__ import annotations

from pathlib import Path

from services.adapters.erofs_index import IndexMaker
from services.core.mounts.erofs_files import files_image
from tests.integration.hard_layers import beyond_eight_gigabytes


async def test_a_tar_split_has_the_size_of_nine_gigabytes(tmp_path: Path) -> None:
    """It is made within the program's limits of time and memory, and is small."""
    tar = tmp_path / "tar"
    size_bytes = beyond_eight_gigabytes(tar)
    made = await IndexMaker(tmp_path / "index").split("large", tar)
    content = made.read_bytes()
    assert str(size_bytes).encode() in content
    assert len(content) < 4 * len(files_image({"size": b"1", "tar-split.json.gz": b"1"}))
