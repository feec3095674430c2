"""The mode of the root folder in an EROFS index, where the layer's tar does not name that folder.

An engine makes a layer's root folder with mode 0755 unless the tar has an entry for it; mkfs.erofs makes it 0777. Which
of the two it is shows in the index itself: a folder that the tar does not name gets the image's own build time, and
an inode whose time is the build time is a compact one. So the index is made with `BUILD_TIME`, a moment that no tar
has, and a compact root inode with that build time is one to mend.

Layout: EROFS on-disk format, `struct erofs_super_block`, `struct erofs_inode_compact` (Linux, fs/erofs/erofs_fs.h).
"""

from __future__ import annotations

import struct

#: 2104-06-09; given to `mkfs.erofs -T`.
BUILD_TIME = 4242424242
SUPERBLOCK_OFFSET = 1024
SUPERBLOCK_BYTES = 128
_MAGIC = 0xE0F5E1E2
_INODE_SLOT_BYTES = 32
_BLOCK_BITS = range(9, 17)
_EXTENDED = 1
_FOLDER_0777 = 0o40777
_FOLDER_0755 = 0o40755


def root_inode_offset(superblock: bytes) -> int:
    """Where the root inode is, in bytes from the image's start. Raises ValueError for what is no such superblock."""
    if len(superblock) < SUPERBLOCK_BYTES:
        raise ValueError("the index is too short for an EROFS superblock")
    (magic,) = struct.unpack_from("<I", superblock, 0)
    block_bits, (root,), (metadata,) = superblock[12], *_fields(superblock)
    if magic != _MAGIC or block_bits not in _BLOCK_BITS:
        raise ValueError(f"the index is no EROFS image (magic {magic:#x}, block bits {block_bits})")
    return (int(metadata) << block_bits) + int(root) * _INODE_SLOT_BYTES


def mended_mode(superblock: bytes, inode: bytes) -> bytes | None:
    """The root inode's first bytes with mode 0755, if the tar does not name the root folder; None to leave it."""
    if len(inode) < _INODE_SLOT_BYTES:
        raise ValueError("the index ends within its root inode")
    kind, _attributes, mode = struct.unpack_from("<HHH", inode)
    (built,) = struct.unpack_from("<Q", superblock, 24)
    if kind & _EXTENDED or built != BUILD_TIME or mode != _FOLDER_0777:
        return None
    return inode[:4] + struct.pack("<H", _FOLDER_0755) + inode[6:]


def _fields(superblock: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The root's number and the first metadata block."""
    return struct.unpack_from("<H", superblock, 14), struct.unpack_from("<I", superblock, 40)
