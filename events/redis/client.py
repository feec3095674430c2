"""Connections to Redis: one client for commands, one for reads that block, and the mapping of their errors.

redis-py's defaults hurt streams: its socket timeout is shorter than a block, and its retries send an XADD whose reply
was lost again. So reads that block have a client of their own whose socket waits longer than the block, the library
never retries, and what is repeated is repeated here: scripts that may run twice.

    redis://[user:password@]host:port/db              one server (also rediss://, unix://)
    rediss://host:port/db?ssl_ca_certs=FILE           over TLS; also ssl_certfile and ssl_keyfile, as redis-py has them
    redis+sentinel://host:port,host:port/service/db   whatever server the sentinels say is the master (`urls.py`)
    redis+cluster://host:port,host:port               a cluster; the key prefix must name one slot: `{cyroid}`
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Protocol, Self, TypeAlias, cast
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from events.bus import BusDenied, BusRefused, BusUnavailable, BusUnreachable
from events.redis.confirmation import Confirmation, PipelineClient
from events.redis.direct_client import DirectClient, PackedConnection
from events.redis.sentinel import SentinelClient, SentinelsRefuse
from events.redis.tls_errors import certificate_problem
from events.redis.urls import SENTINEL_SCHEMES, addresses, login_of, read_sentinel_url, unreadable_file

Argument: TypeAlias = str | bytes | int | float
Reply: TypeAlias = Any

#: Worth another try, on a fresh connection: the server is unavailable, starting or failing over.
PASSING = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    ClusterDownError,
    RedisClusterException,
    OSError,
    TimeoutError,
)
#: Refusals that pass as well, by how they begin: a replica that lost its master, too few replicas, a full disk.
_PASSING_CODES = ("MASTERDOWN", "NOREPLICAS", "MISCONF", "UNBLOCKED", "TRYAGAIN", "LOADING", "BUSY ", "OOM")

#: What a cluster hashes instead of the whole key: the text in the first pair of braces.
_ONE_SLOT = re.compile(r"^[^{]*\{[^}]+\}")


class Client(Protocol):
    """What redis-py's clients have in common."""

    def execute_command(self, *args: Any, **options: Any) -> Any: ...

    async def aclose(self) -> None: ...


class Commands:
    """Runs commands within a time limit. Every command sent here may run twice.

    `timeout_seconds` is the socket's; one command gets a second more, for connecting. `confirmation`: which replicas
    `confirmed` waits for; it needs a client with pipelines.
    """

    def __init__(
        self,
        client: Client,
        *,
        timeout_seconds: float = 5.0,
        attempts: int = 3,
        confirmation: Confirmation | None = None,
    ) -> None:
        self._client = client
        self._timeout = timeout_seconds
        self._attempts = attempts
        self._confirmation = confirmation
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self._client.aclose)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def call(self, *arguments: Argument) -> Reply:
        """One command, tried again when its connection broke.

        Raises BusUnavailable (BusDenied among them), BusRefused, redis' NoScriptError.
        """
        return await self._tried(lambda: self._client.execute_command(*arguments), str(arguments[0]))

    async def confirmed(self, *arguments: Argument) -> Reply:
        """One command that counts as done once enough replicas have it, where any are waited for; raises as `call`."""
        confirmation = self._confirmation
        if confirmation is None:
            return await self.call(*arguments)
        client = cast(PipelineClient, self._client)
        return await self._tried(lambda: confirmation.call(client, *arguments), str(arguments[0]))

    async def _tried(self, send: Callable[[], Awaitable[Reply]], command: str) -> Reply:
        task = asyncio.current_task()
        cancelling = task.cancelling() if task else 0
        for attempt in range(1, self._attempts + 1):
            try:
                async with asyncio.timeout(self._timeout + 1.0):  # the socket's own timeout comes first
                    reply = await send()
                if task and task.cancelling() > cancelling:  # lost in the library's wait_for (Python 3.11's)
                    raise asyncio.CancelledError
                return reply
            except NoScriptError:
                raise
            except AuthenticationError as error:  # to redis-py a broken connection; another try is refused as well
                raise BusDenied(_denied(error)) from error
            except PASSING as error:
                if task and task.cancelling() > cancelling:  # or it came as the timeout that it met
                    raise asyncio.CancelledError from error
                if problem := certificate_problem(str(error)):
                    raise BusDenied(problem) from error
                if attempt == self._attempts:
                    raise BusUnreachable(f"Redis is unreachable: {describe(error)}") from error
            except OutOfMemoryError as error:
                raise BusUnavailable(f"Redis is out of memory, raise maxmemory or free some: {error}") from error
            except RedisError as error:
                if str(error).startswith(_PASSING_CODES):
                    raise BusUnavailable(f"Redis cannot do {command} for now: {error}") from error
                raise BusRefused(f"Redis refused {command}: {describe(error)}") from error
            await asyncio.sleep(0.02 * 4**attempt)
        raise BusUnavailable("no attempt was made")


def connect(url: str, *, socket_timeout: float, name: str, prefix: str, connections: int | None = None) -> Client:
    """A client that never retries by itself and gives replies as they come (bytes, RESP2).

    `connections` bounds how many it opens to one server; sentinels and clusters have as many as they need.

    `prefix` is the key prefix of all that is asked. Raises BusRefused where a cluster would spread its keys, and for
    what is no address.
    """
    try:
        return _connected(url, socket_timeout, name, prefix, connections)
    except ValueError:  # its text may hold a piece of a password
        raise BusRefused("this is no address of Redis: a port or a database in it is no number") from None


def _connected(url: str, socket_timeout: float, name: str, prefix: str, connections: int | None) -> Client:
    options: dict[str, Any] = {
        "protocol": 2,
        "legacy_responses": False,
        "decode_responses": False,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": min(socket_timeout, 5.0),
        "health_check_interval": 0,
        "client_name": name,
    }
    parts, login = urlsplit(url), login_of(url)
    if problem := unreadable_file(login):
        raise BusRefused(problem)
    if parts.scheme == "redis+cluster":
        if not _ONE_SLOT.search(prefix):
            raise BusRefused(
                f"in a cluster the key prefix must be in braces, so that all keys lie on one node: {{{prefix}}}"
                f" instead of {prefix} (CYROID_KEY_PREFIX)"
            )
        if parts.query:
            raise BusRefused("a redis+cluster:// URL takes no parameters; over TLS a cluster cannot be used")
        nodes = [ClusterNode(host, port) for host, port in addresses(parts.netloc.rpartition("@")[2], 6379)]
        cluster = RedisCluster(startup_nodes=nodes, retry=_never(), **login, **options)
        return _Clustered(cluster, prefix)
    options |= {"retry": _never(), "retry_on_timeout": False}
    if parts.scheme in SENTINEL_SCHEMES:
        read = read_sentinel_url(url)
        options |= {"db": read.database, **read.login}
        return SentinelClient(read.addresses, read.service, asking=read.asking, **options)
    if parts.scheme == "redis":
        options["connection_class"] = PackedConnection
    if connections is not None:
        pool = BlockingConnectionPool.from_url(url, max_connections=connections, timeout=socket_timeout, **options)
        return _raw(_checked(Redis.from_pool(pool)))
    return _raw(_checked(DirectClient.from_url(url, **options)))


def _checked(client: Redis) -> Redis:
    """Raises BusRefused for a parameter of its URL that redis-py does not take; it would say so at each command."""
    pool = client.connection_pool
    try:
        pool.connection_class(**pool.connection_kwargs)
    except TypeError as error:
        name = str(error).rpartition("argument ")[2]
        hint = ": over TLS it is rediss://" if name.startswith("'ssl_") else ""
        raise BusRefused(f"{name} is no parameter of a URL of Redis{hint}") from error
    except RedisError as error:
        raise BusRefused(f"a parameter in Redis's URL is wrong: {describe(error)}") from error
    return client


class _Clustered:
    """A cluster's client. What names no key is asked of the one node that has all of ours, not of any or all."""

    def __init__(self, cluster: RedisCluster, prefix: str) -> None:
        self._cluster = cluster
        self._prefix = prefix
        # The library itself reads the replies to these two kinds; all others are wanted as they come.
        for name in [one for one in cluster.response_callbacks if not one.startswith(("CLUSTER", "COMMAND"))]:
            del cluster.response_callbacks[name]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] not in ("SCAN", "INFO", "TIME"):
            return await self._cluster.execute_command(*args, **options)
        await self._cluster.initialize()
        node = self._cluster.get_node_from_key(self._prefix)
        if node is None:
            raise RedisClusterException(f"no node has the slot of {self._prefix}")
        return await node.execute_command(*args)

    async def aclose(self) -> None:
        """Also what commands under way opened again after the library closed its client, as a node did not answer."""
        await self._cluster.aclose()
        for nodes in ("nodes_cache", "startup_nodes"):
            await self._cluster.nodes_manager.aclose(nodes)


def _raw(client: Redis) -> Client:
    """Disables the library's reshaping of replies, which differs between its versions and protocols."""
    client.response_callbacks.clear()
    return client


def _never() -> Retry:
    return Retry(NoBackoff(), 0)


def _denied(error: AuthenticationError) -> str:
    if isinstance(error, SentinelsRefuse):
        who, what = "the sentinels of Redis do", "sentinel_username and sentinel_password"
    else:
        who, what = "Redis does", "the user and password"
    return f"{who} not let us in ({describe(error)}): correct {what} in its URL"


def describe(error: BaseException) -> str:
    """An error's text without its full stop, to be part of a sentence; the error's class name where it has no text."""
    return str(error).rstrip(".") or type(error).__name__
