"""An EROFS image of a few plain files, with their content in it: what a range gets beside a layer's files.

Layout: EROFS on-disk format (Linux, fs/erofs/erofs_fs.h): superblock, the root folder as an inode with its entries
inline, an inode for each file, then the files' blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from services.core.mounts.erofs_blob import BLOCK_BITS, folder_entries, superblock

_BLOCK = 1 << BLOCK_BITS
_ROOT, _FILES, _INODE_BYTES = 0x500, 0x600, 32
_FLAT_PLAIN, _FLAT_INLINE = 0 << 1, 2 << 1
_IS_FOLDER, _IS_FILE = 2, 1
#: Root and its entries lie in one block.
_FILES_LIMIT = 4
_SIZE_LIMIT_BYTES = (1 << 32) - 1


def files_image(files: Mapping[str, bytes]) -> bytes:
    """The image. Raises ValueError for more than four files, long names, or content of 4 GiB."""
    if len(files) > _FILES_LIMIT or any(len(content) > _SIZE_LIMIT_BYTES for content in files.values()):
        raise ValueError("an image of a few small files was asked for")
    places = {name: _FILES + index * _INODE_BYTES for index, name in enumerate(sorted(files))}
    first = -(-(_FILES + len(files) * _INODE_BYTES) // _BLOCK)
    names = [
        (".", _ROOT, _IS_FOLDER),
        ("..", _ROOT, _IS_FOLDER),
        *((name, at, _IS_FILE) for name, at in places.items()),
    ]
    entries = folder_entries(names)
    if _ROOT + _INODE_BYTES + len(entries) > _FILES:
        raise ValueError("the names of the files are too long")
    inodes, blocks, block = b"", bytearray(), first
    for number, name in enumerate(places, start=2):
        content = files[name]
        inodes += _inode((_FLAT_PLAIN, 0o100444, 1), len(content), block, number)
        blocks += content + bytes(-len(content) % _BLOCK)
        block += -(-len(content) // _BLOCK)
    head = bytearray(first * _BLOCK)
    for at, part in (
        (0x400, superblock(block, root=_ROOT, inodes=len(files) + 1)),
        (_ROOT, _inode((_FLAT_INLINE, 0o40555, 2), len(entries), 0xFFFFFFFF, 1) + entries),
        (_FILES, inodes),
    ):
        head[at : at + len(part)] = part
    return bytes(head + blocks)


def _inode(kind: tuple[int, int, int], size: int, block: int, number: int) -> bytes:
    layout, mode, links = kind
    return struct.pack("<HHHHIIIIHHI", layout, 0, mode, links, size, 0, block, number, 0, 0, 0)
