"""Protocol Buffers wire format, as much as BuildKit's messages need (protobuf.dev, "Encoding").

Varints and length-delimited fields are read and written; fixed-width fields are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
#: A varint holds 64 bits, seven in each byte.
_VARINT_BYTES = 10

Field = tuple[int, int | bytes]


def fields(content: bytes) -> Iterator[Field]:
    """Number and value of each field of a message, in their order. Raises ValueError for what is no message."""
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, place = _varint(content, place)
            yield number, value
        elif kind == _BYTES:
            size, place = _varint(content, place)
            yield number, _exactly(content, place, size)
            place += size
        elif kind in _FIXED_BYTES:
            _exactly(content, place, _FIXED_BYTES[kind])
            place += _FIXED_BYTES[kind]
        else:
            raise ValueError(f"a field of wire type {kind}")


def text(value: int | bytes) -> str:
    """A string field's value."""
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def message(*written: Field) -> bytes:
    """A message with these fields."""
    return b"".join(_written(number, value) for number, value in written)


def _written(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _as_varint(number << 3 | _VARINT) + _as_varint(value)
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(value)) + value


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """The number that begins at `place`, and where it ends."""
    value = 0
    for count, byte in enumerate(content[place : place + _VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise ValueError("a varint without an end")


def _exactly(content: bytes, place: int, size: int) -> bytes:
    piece = content[place : place + size]
    if len(piece) != size:
        raise ValueError(f"a field of {size} bytes of which {len(piece)} are there")
    return piece
