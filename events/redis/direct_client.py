"""Client of one server: redis-py's, with what it does around each command left out."""

from __future__ import annotations

from typing import Any

import hiredis
from redis.asyncio import Connection, Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError


class PackedConnection(Connection):
    """Encodes commands in C, which the library does for its blocking connections alone, and sends without a task for
    each of them.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *rest = args
        words = name.split() if isinstance(name, str) else [name]
        return [hiredis.pack_command((*words, *rest))]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        writer = self._writer
        if writer is None or writer.transport.get_write_buffer_size():
            await super().send_packed_command(command, check_health)
            return
        writer.writelines(command)
        if writer.transport.get_write_buffer_size():  # the rest within the time limit
            await super().send_packed_command([], check_health)


class DirectClient(Redis):
    """A client of one server without what the library does around each command: its retries, which are off here, its
    measurements, and a round through the pool. Connections are kept for the next command.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._kept: list[AbstractConnection] = []

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        connection = await self._connection()
        try:
            await connection.send_packed_command(connection.pack_command(*args), check_health=False)
            return await connection.read_response()
        finally:
            self._kept.append(connection)  # where it failed half-way, the library has closed it

    async def _connection(self) -> AbstractConnection:
        """One that is connected, and on which nothing is left to read. Raises redis' errors."""
        if not self._kept:
            fresh: AbstractConnection = await self.connection_pool.get_connection()  # type: ignore[no-untyped-call]
            return fresh
        connection = self._kept.pop()
        try:
            stale = await connection.can_read()
        except RedisConnectionError:
            stale = True
        if stale:  # closed by the server, or by an error: sending connects again
            await connection.disconnect()
        return connection
