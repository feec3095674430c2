"""An EROFS image with one file, `data`, whose content is a whole other file: a layer's blob, shown read-only for good.

A bind mount of the blob would be a view of a writable file system: whoever may mount in a range can make it writable
again. Nothing can be written through EROFS. The image is 1.5 KiB, the content stays where it is (`device=` at mount).

A tar is whole blocks. A compressed blob ends within one, and a loop device would leave that block out. So such a blob
is cut into chunks, and its last one lies in the image itself.

Layout: EROFS on-disk format (Linux, fs/erofs/erofs_fs.h): superblock, one device slot, the root folder as an inode with
its two-and-one entries inline, the file as an inode with its chunks, which begin at the device's first block.
"""

from __future__ import annotations

import struct

FILE_NAME = "data"
BLOCK_BITS = 9
_MAGIC = 0xE0F5E1E2
_DEVICE_TABLE, _CHUNKED_FILE = 8, 4
_SUPERBLOCK, _SLOT, _ROOT, _FILE = 0x400, 0x480, 0x500, 0x560
_CHUNKS, _CHUNK_BYTES = _FILE + 64, 8
_ENTRY_BYTES = 12
_IS_FOLDER, _IS_FILE = 2, 1
_FLAT_INLINE, _CHUNK_BASED_EXTENDED = 2 << 1, (4 << 1) | 1
_WITH_INDEXES, _CHUNK_BITS_LIMIT = 0x20, 31
#: One chunk is enough up to here, and block numbers are 32 bits wide.
SIZE_LIMIT_BYTES = 1 << (BLOCK_BITS + _CHUNK_BITS_LIMIT)
#: Chunks of a blob that ends within a block, in blocks (as a power of two): more of them from some gigabytes on.
_PART_BITS, _PARTS_BITS = 7, 17


def tail_bytes(size_bytes: int) -> int:
    """How many bytes of the end of a blob of that size lie in the image itself: less than a block is never outside."""
    return size_bytes % (1 << (BLOCK_BITS + _chunk_bits(size_bytes))) if size_bytes % (1 << BLOCK_BITS) else 0


def single_file_image(size_bytes: int, tail: bytes = b"") -> bytes:
    """The image for a file of that size, whose last `tail_bytes` are `tail`.

    Raises ValueError for one that is too large or empty, or for another tail.
    """
    if not 0 < size_bytes <= SIZE_LIMIT_BYTES:
        raise ValueError(f"a blob of {size_bytes} bytes cannot be shown: from 1 to {SIZE_LIMIT_BYTES}")
    if len(tail) != tail_bytes(size_bytes):
        raise ValueError(f"a blob of {size_bytes} bytes was changed meanwhile")
    blocks, chunk_bits = (size_bytes - len(tail)) >> BLOCK_BITS, _chunk_bits(size_bytes)
    outside = -(-blocks >> chunk_bits)
    places = [(1, number << chunk_bits) for number in range(outside)]
    first = -(-(_CHUNKS + _CHUNK_BYTES * (outside + bool(tail))) >> BLOCK_BITS)
    end = first + -(-len(tail) >> BLOCK_BITS)
    if tail:
        places.append((0, first))
    image = bytearray(end << BLOCK_BITS)
    _put(image, _SUPERBLOCK, superblock(end, root=_ROOT, inodes=2, incompatible=_DEVICE_TABLE | _CHUNKED_FILE))
    _put(image, _SLOT, bytes(64) + struct.pack("<II", min(blocks, 0xFFFFFFFF), end))
    names = [(".", _ROOT, _IS_FOLDER), ("..", _ROOT, _IS_FOLDER), (FILE_NAME, _FILE, _IS_FILE)]
    entries = folder_entries(names)
    _put(image, _ROOT, struct.pack("<HHHHII", _FLAT_INLINE, 0, 0o40555, 2, len(entries), 0))
    _put(image, _ROOT + 16, struct.pack("<II", 0xFFFFFFFF, 1))
    _put(image, _ROOT + 32, entries)
    _put(image, _FILE, struct.pack("<HHHHQ", _CHUNK_BASED_EXTENDED, 0, 0o100444, 0, size_bytes))
    _put(image, _FILE + 16, struct.pack("<II", _WITH_INDEXES | chunk_bits, 2))
    _put(image, _FILE + 44, struct.pack("<I", 1))
    _put(image, _CHUNKS, b"".join(struct.pack("<HHI", 0, device, block) for device, block in places))
    _put(image, first << BLOCK_BITS, tail)
    return bytes(image)


def _chunk_bits(size_bytes: int) -> int:
    blocks = -(-size_bytes >> BLOCK_BITS)
    if size_bytes % (1 << BLOCK_BITS):
        return max(_PART_BITS, blocks.bit_length() - _PARTS_BITS)
    return max(blocks - 1, 1).bit_length()


def superblock(blocks: int, *, root: int, inodes: int, incompatible: int = 0) -> bytes:
    """The superblock of an image of so many blocks, whose root inode is `root` bytes from its start."""
    first = struct.pack("<IIIBBHQQIIII", _MAGIC, 0, 0, BLOCK_BITS, 0, _number(root), inodes, 0, 0, blocks, 0, 0)
    slots = (1, _SLOT // 128) if incompatible & _DEVICE_TABLE else (0, 0)
    return first.ljust(80, b"\0") + struct.pack("<IHHHB", incompatible, 0, *slots, 0)


def folder_entries(names: list[tuple[str, int, int]]) -> bytes:
    """Entries of a folder: name, place of the inode, type; in the names' order."""
    entries, texts = b"", b""
    for name, place, kind in names:
        offset = _ENTRY_BYTES * len(names) + len(texts)
        entries += struct.pack("<QHBB", _number(place), offset, kind, 0)
        texts += name.encode()
    return entries + texts


def _number(place: int) -> int:
    """Inodes are numbered by the slot of 32 bytes they begin in; metadata begins at the image's start."""
    return place // 32


def _put(image: bytearray, place: int, content: bytes) -> None:
    image[place : place + len(content)] = content
