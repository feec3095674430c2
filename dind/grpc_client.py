"""A gRPC client for a server on this machine, one call after the other, with the standard library alone.

The range's init places layers in containerd before an engine's first start, and every millisecond of that is the
engine's: the libraries that the agent uses for the same take longer to import than all calls. Of HTTP/2 (RFC 9113) only
what a call over one connection needs is here, of HPACK (RFC 7541) what it takes to find a call's status. What a server
of another kind may send is an OSError.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

OK, NOT_FOUND, ALREADY_EXISTS = 0, 5, 6
_STATUSES = 17
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_TABLE_SIZE, _FIRST_WINDOW = 1, 4
_FRAME_BYTES, _WINDOW_BYTES, _ANSWER_BYTES = 16384, 65535, 1 << 20
#: HPACK's Huffman code (RFC 7541, appendix B), as far as it is read here: of a name, and of digits by their bits.
_STATUS = {(False, b"grpc-status"), (True, bytes.fromhex("9acac8b21234da8f"))}
_DIGITS = {str(digit): f"{digit:05b}" if digit < 3 else f"{digit + 22:06b}" for digit in range(10)}


class GrpcClient:
    """One connection to the socket `path`. Raises OSError."""

    def __init__(self, path: Path, *, seconds: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._received = b""
        self._early: list[tuple[int, int, int, bytes]] = []
        self._stream = -1
        self._first_window = self._stream_window = self._window = _WINDOW_BYTES
        try:
            self._socket.settimeout(seconds)
            self._socket.connect(str(path))
            # No table: each block of headers can be read without those before it.
            settings = struct.pack(">HI", _TABLE_SIZE, 0)
            self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, settings))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, message: bytes, metadata: Mapping[str, str]) -> tuple[int, bytes]:
        """The status of a call (`/package.Service/Method`), and its first answer. Raises OSError."""
        self._stream += 2
        self._stream_window = self._first_window
        headers = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "localhost"}
        headers |= {"content-type": "application/grpc", "te": "trailers", **metadata}
        self._socket.sendall(
            _frame(_HEADERS, _END_HEADERS, self._stream, b"".join(map(_header, headers, headers.values())))
        )
        self._send(b"\0" + struct.pack(">I", len(message)) + message)
        return self._answer()

    def _send(self, content: bytes) -> None:
        """The body of a call, as fast as the server takes it."""
        while content:
            while (room := min(self._window, self._stream_window, _FRAME_BYTES)) <= 0:
                early = self._frame()
                if early[0] in (_DATA, _HEADERS) and early[2] == self._stream:
                    self._early.append(early)  # it answers before it has all
                    return
                self._other(*early)
            part, content = content[:room], content[room:]
            self._window -= len(part)
            self._stream_window -= len(part)
            self._socket.sendall(_frame(_DATA, 0 if content else _END_STREAM, self._stream, part))

    def _answer(self) -> tuple[int, bytes]:
        content, status = b"", -1
        while True:
            kind, flags, stream, payload = self._early.pop() if self._early else self._frame()
            if stream != self._stream or kind not in (_DATA, _HEADERS):
                self._other(kind, flags, stream, payload)
                continue
            if flags & (_PADDED | _PRIORITY if kind == _HEADERS else _PADDED):
                raise ConnectionError("the server pads its frames")
            if kind == _DATA:
                content += payload
                if payload:  # room for as much again, in this call and in all
                    room = struct.pack(">I", len(payload))
                    self._socket.sendall(_frame(_WINDOW, 0, 0, room) + _frame(_WINDOW, 0, stream, room))
            else:
                status = max(status, _status(self._whole(flags, payload)))
            if len(content) > _ANSWER_BYTES:
                raise ConnectionError(f"the server answers more than {_ANSWER_BYTES} bytes")
            if flags & _END_STREAM:
                break
        if status < 0:
            raise ConnectionError("the server gives no status")
        return status, content[5 : 5 + struct.unpack_from(">I", content, 1)[0]] if len(content) >= 5 else b""

    def _whole(self, flags: int, payload: bytes) -> bytes:
        """A block of headers with what continues it."""
        while not flags & _END_HEADERS:
            kind, flags, _, more = self._frame()
            if kind != _CONTINUATION or len(payload) > _ANSWER_BYTES:
                raise ConnectionError("the server does not end its headers")
            payload += more
        return payload

    def _other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """What concerns the connection, or how much the server takes."""
        if kind == _SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack(">HI", payload[: len(payload) // 6 * 6]):
                if name == _FIRST_WINDOW:
                    self._stream_window += value - self._first_window
                    self._first_window = value
            self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW and len(payload) == 4:
            room = struct.unpack(">I", payload)[0]
            if stream == 0:
                self._window += room
            elif stream == self._stream:
                self._stream_window += room
        elif kind == _GO_AWAY or (kind == _RESET and stream == self._stream):
            raise ConnectionError("the server broke the call off")

    def _frame(self) -> tuple[int, int, int, bytes]:
        head = self._read(9)
        length, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
        if length > _FRAME_BYTES:
            raise ConnectionError("what answers speaks no HTTP/2")
        return kind, flags, stream & 0x7FFFFFFF, self._read(length)

    def _read(self, count: int) -> bytes:
        while len(self._received) < count:
            more = self._socket.recv(1 << 16)
            if not more:
                raise ConnectionError("the server closed the connection")
            self._received += more
        found, self._received = self._received[:count], self._received[count:]
        return found


def encode(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protobuf message of these fields, by their numbers; what is empty is left out, as protobuf does."""
    content = b""
    for number, value in fields:
        if isinstance(value, int):
            content += _varint(number << 3) + _varint(value) if value else b""
        elif value:
            text = value.encode() if isinstance(value, str) else value
            content += _varint(number << 3 | 2) + _varint(len(text)) + text
    return content


def texts(content: bytes, number: int) -> list[bytes]:
    """The strings or messages in the field `number` of a message. Raises ValueError for what is none."""
    found, place = list[bytes](), 0
    while place < len(content):
        tag, place = _read_varint(content, place)
        if tag & 7 == 0:
            _, place = _read_varint(content, place)
        elif tag & 7 == 2:
            length, place = _read_varint(content, place)
            if place + length > len(content):
                raise ValueError("a field is cut off")
            found += [content[place : place + length]] if tag >> 3 == number else []
            place += length
        elif tag & 7 in (1, 5):
            place += 8 if tag & 7 == 1 else 4
        else:
            raise ValueError("this is no message")
    return found


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _header(name: str, value: str) -> bytes:
    """One header, as it is (RFC 7541, 6.2.2)."""
    return b"\0" + b"".join(_prefixed(len(text)) + text for text in (name.encode(), value.encode()))


def _prefixed(number: int) -> bytes:
    """An integer with a prefix of seven bits (RFC 7541, 5.1)."""
    return bytes((number,)) if number < 127 else b"\x7f" + _varint(number - 127)


def _status(block: bytes) -> int:
    """The status in a block of headers; -1 where there is none. Raises ConnectionError."""
    try:
        for name, value in _headers(block):
            if name in _STATUS:
                return next(number for number in range(_STATUSES) if value in _written(number))
    except (ValueError, IndexError, StopIteration) as problem:
        raise ConnectionError(f"the server's headers cannot be read: {problem}") from problem
    return -1


def _written(number: int) -> tuple[tuple[bool, bytes], tuple[bool, bytes]]:
    """A number as a header's value: as it is, and in Huffman's code, which ends with ones."""
    bits = "".join(_DIGITS[digit] for digit in str(number))
    coded = int(bits.ljust((len(bits) + 7) // 8 * 8, "1"), 2).to_bytes((len(bits) + 7) // 8, "big")
    return (False, str(number).encode()), (True, coded)


def _headers(block: bytes) -> Iterator[tuple[tuple[bool, bytes], tuple[bool, bytes]]]:
    """Names and values of the headers that are spelt out. Raises ValueError, IndexError."""
    place = 0
    while place < len(block):
        first = block[place]
        # An indexed field, one that is to be indexed, a new size of the table; else one that is not to be indexed.
        bits = 7 if first & 0x80 else 6 if first & 0x40 else 5 if first & 0x20 else 4
        index, place = _integer(block, place, bits)
        if bits in (7, 5):
            continue
        name = (False, b"")
        if not index:
            name, place = _string(block, place)
        value, place = _string(block, place)
        yield name, value


def _string(block: bytes, place: int) -> tuple[tuple[bool, bytes], int]:
    """A string as it is sent, and whether it is in Huffman's code."""
    coded = bool(block[place] & 0x80)
    length, place = _integer(block, place, 7)
    if place + length > len(block):
        raise ValueError("a string is cut off")
    return (coded, block[place : place + length]), place + length


def _integer(block: bytes, place: int, bits: int) -> tuple[int, int]:
    """RFC 7541, 5.1."""
    number, most = block[place] & ((1 << bits) - 1), (1 << bits) - 1
    if number < most:
        return number, place + 1
    more, place = _read_varint(block, place + 1)
    return most + more, place


def _varint(number: int) -> bytes:
    content = b""
    while number > 127:
        content += bytes((number & 127 | 128,))
        number >>= 7
    return content + bytes((number,))


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if place >= len(content) or shift > 63:
            raise ValueError("a number is cut off")
        byte = content[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place
