"""Confirmation by replicas: a commit counts as made once so many replicas have it (WAIT).

Replication is asynchronous: a master that dies takes with it what no replica has received yet, and what it had
acknowledged. WAIT looks at the last write of its own connection. A commit that is tried again, perhaps on another
connection, may have written at its first try; so a write of one byte (`PREFIX:confirmed`) goes between, which comes
after whatever was written before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from redis.exceptions import RedisError

from events.bus import BusUnavailable


class PipelineClient(Protocol):
    """What redis-py's clients of one server have in common."""

    def pipeline(self, *, transaction: bool) -> Any: ...


@dataclass(frozen=True, slots=True)
class Confirmation:
    """How many `replicas` must have a write, and how long they are waited for, in milliseconds."""

    replicas: int
    prefix: str
    wait_ms: int

    async def call(self, client: PipelineClient, *arguments: str | bytes | float) -> Any:
        """The reply of one command that enough replicas have. Raises redis' errors, BusUnavailable.

        After BusUnavailable the command may have taken effect: it must be one that may run twice.
        """
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command(*arguments)
            pipeline.execute_command("SET", f"{self.prefix}:confirmed", b"1")
            pipeline.execute_command("WAIT", self.replicas, self.wait_ms)
            reply, written, confirmed = await pipeline.execute(raise_on_error=False)
        for answer in (reply, written):
            if isinstance(answer, RedisError):
                raise answer
        if isinstance(confirmed, RedisError):  # demoted while it waited
            raise BusUnavailable(f"Redis did not say how many replicas have it: {confirmed}") from confirmed
        if confirmed < self.replicas:
            raise BusUnavailable(
                f"{confirmed} of {self.replicas} replicas confirmed within {self.wait_ms} ms"
                " (CYROID_CONFIRM_REPLICAS): see whether they run and follow the master"
            )
        return reply
