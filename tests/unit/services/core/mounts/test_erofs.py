"""EROFS images by their bytes; that the kernel mounts them is tested with the layer folder."""

from __future__ import annotations

import struct

import pytest

from services.core.mounts.erofs_blob import SIZE_LIMIT_BYTES, single_file_image, tail_bytes
from services.core.mounts.erofs_files import files_image
from services.core.mounts.erofs_root import BUILD_TIME, SUPERBLOCK_OFFSET, mended_mode, root_inode_offset

COMPACT, EXTENDED = 4, 5


def superblock(image: bytes, build_time: int = 0) -> bytes:
    block = bytearray(image[SUPERBLOCK_OFFSET : SUPERBLOCK_OFFSET + 128])
    struct.pack_into("<Q", block, 24, build_time)
    return bytes(block)


def inode(kind: int, mode: int) -> bytes:
    return struct.pack("<HHH", kind, 0, mode).ljust(64, b"\0")


def test_the_root_of_an_image_is_found() -> None:
    """A folder, where the superblock says it is."""
    image = single_file_image(512)
    offset = root_inode_offset(superblock(image))
    assert struct.unpack_from("<H", image, offset + 4) == (0o40555,)


@pytest.mark.parametrize("size", [0, -512, SIZE_LIMIT_BYTES + 512])
def test_a_blob_has_bytes_and_a_limit(size: int) -> None:
    """Not more than one chunk describes."""
    with pytest.raises(ValueError, match="cannot be shown"):
        single_file_image(size)


@pytest.mark.parametrize("size", [1, 511, 513, 65_537, 10_000_000_001])
def test_the_end_of_a_blob_that_is_no_whole_block_lies_in_the_image(size: int) -> None:
    """Less than a chunk; what is before it stays outside, in whole blocks. A tar has no such end."""
    tail = tail_bytes(size)
    assert (size - tail) % 512 == 0
    assert 0 < tail < 128 << 10
    assert single_file_image(size, b"x" * tail).rstrip(b"\0").endswith(b"x" * tail)
    with pytest.raises(ValueError, match="changed meanwhile"):
        single_file_image(size, b"x" * (tail - 1))
    assert tail_bytes(size - size % 512) == 0


@pytest.mark.parametrize("block", [b"", b"x" * 128, bytes(128)])
def test_what_is_no_superblock_is_refused(block: bytes) -> None:
    """The program that made it may have been fooled."""
    with pytest.raises(ValueError, match="EROFS"):
        root_inode_offset(block)


def test_a_root_that_the_tar_does_not_name_gets_the_mode_of_an_engine() -> None:
    """It is a compact inode with the time of the build and mode 0777."""
    block = superblock(single_file_image(512), BUILD_TIME)
    mended = mended_mode(block, inode(COMPACT, 0o40777))
    assert mended is not None
    assert struct.unpack_from("<HHH", mended) == (COMPACT, 0, 0o40755)


def test_a_root_that_the_tar_names_is_left() -> None:
    """Its own time makes it an extended inode; another mode is its own as well."""
    block = superblock(single_file_image(512), BUILD_TIME)
    assert mended_mode(block, inode(EXTENDED, 0o40777)) is None
    assert mended_mode(block, inode(COMPACT, 0o40700)) is None
    with pytest.raises(ValueError, match="root inode"):
        mended_mode(block, b"short")


def test_an_image_of_files_has_their_content_in_blocks_of_their_own() -> None:
    """In the order of their names, after the inodes."""
    image = files_image({"size": b"12", "list": b"x" * 513})
    offset = root_inode_offset(superblock(image))
    assert struct.unpack_from("<H", image, offset + 4) == (0o40555,)
    assert image.index(b"x" * 513) % 512 == 0
    assert image.endswith(b"12".ljust(512, b"\0"))


@pytest.mark.parametrize("files", [{str(number): b"" for number in range(5)}, {"n" * 255: b""}], ids=["many", "long"])
def test_an_image_of_files_has_few_with_short_names(files: dict[str, bytes]) -> None:
    """The root folder and its names lie in one block."""
    with pytest.raises(ValueError, match="file"):
        files_image(files)
