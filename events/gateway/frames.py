"""Framing of the gateway protocol: four bytes of length (unsigned, big endian), then that many bytes."""

from __future__ import annotations

import asyncio
import struct

_LENGTH = struct.Struct(">I")


class FrameTooLarge(Exception):
    """The announced length is over the limit; nothing of the frame was read."""


async def read_frame(reader: asyncio.StreamReader, *, limit_bytes: int, begun_seconds: float | None = None) -> bytes:
    """The next frame. The length is checked before a byte of the frame is read.

    Waits as long as it takes for a frame to begin; one that has begun must be there whole within `begun_seconds`.
    Raises FrameTooLarge, TimeoutError, asyncio.IncompleteReadError at the stream's end.
    """
    first = await reader.readexactly(1)
    async with asyncio.timeout(begun_seconds):
        (length,) = _LENGTH.unpack(first + await reader.readexactly(_LENGTH.size - 1))
        if length > limit_bytes:
            raise FrameTooLarge(f"a frame of {length} bytes was announced, the limit is {limit_bytes}")
        return await reader.readexactly(length)


def frame(payload: bytes) -> bytes:
    """The frame of `payload`: its length, then the payload."""
    return _LENGTH.pack(len(payload)) + payload
