"""The Lua scripts and their batching: concurrent calls of one script travel as one.

Each file in `events/redis/lua` says what it guarantees. A script takes any number of items, so while one call is on its
way the next ones gather and go together: under load the cost of a round trip is shared, and alone nothing waits.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from importlib.resources import files

from redis.exceptions import NoScriptError

from events.bus import BusRefused, BusUnavailable
from events.redis.client import Argument, Commands, Reply

#: So many arguments in one call keep a script near a millisecond.
BATCH_ARGUMENTS = 4000


#: Every script there is.
NAMES = (
    "defer",
    "acquire",
    "commit",
    "consumers",
    "groups",
    "read",
    "recover",
    "redrive",
    "renew",
    "rights",
    "slim",
    "take",
    "trim",
)


def source(name: str) -> str:
    """The text of a script: its own first line (Redis reads flags there), then the prelude, then its body."""
    folder = files("events.redis") / "lua"
    flags, _, body = (folder / f"{name}.lua").read_text().partition("\n")
    return f"{flags}\n{(folder / 'prelude.lua').read_text()}{body}"


class ScriptsMissing(BusUnavailable):
    """Redis does not have the bus's scripts, and this user may not load them; a service that starts later may."""


class Script:
    """One script. When the server does not know it (new, restarted, failed over), all of them are loaded.

    All, because a range's user may run them by digest and load none: a script of its own that never ends would stop
    Redis for everybody. So whoever of the services comes first loads what the agents need as well.

    `confirmed`: its effect counts once the replicas that are waited for have it.
    """

    def __init__(
        self, name: str, commands: Commands, dialect: Callable[[str], str], *, confirmed: bool = False
    ) -> None:
        self._commands = commands
        self._call = commands.confirmed if confirmed else commands.call
        self._dialect = dialect
        self.digest = hashlib.sha1(dialect(source(name)).encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, key: str, arguments: Sequence[Argument]) -> Reply:
        """Raises BusUnavailable, BusRefused."""
        try:
            return await self._call("EVALSHA", self.digest, 1, key, *arguments)
        except NoScriptError:
            await self._load_all()
        try:
            return await self._call("EVALSHA", self.digest, 1, key, *arguments)
        except NoScriptError as error:
            raise BusUnavailable("Redis forgot the bus's scripts again at once") from error

    async def _load_all(self) -> None:
        try:
            for name in NAMES:
                await self._commands.call("SCRIPT LOAD", self._dialect(source(name)))
        except BusRefused as error:
            raise ScriptsMissing("Redis has no scripts of the bus yet; a service that runs loads them") from error


class Batch:
    """Gathers items for one script while the call before them is under way; one reply per item comes back.

    A script answers with a list, or with one line per item. `run` is a task of the bus; an error of a call is the error
    of each item in it.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._queue: deque[tuple[str, Sequence[Argument], asyncio.Future[Reply]]] = deque()
        self._filled = asyncio.Event()
        self._closed = False

    async def submit(self, key: str, arguments: Sequence[Argument]) -> Reply:
        """The reply to one item; `key` is any key in its slot. Raises BusUnavailable, BusRefused."""
        if self._closed:
            raise BusUnavailable("the bus is closed")
        try:  # here, where it is one item's own trouble: sent with others it would fail them all
            "".join([one for one in arguments if isinstance(one, str)]).encode()
        except UnicodeEncodeError as error:
            raise BusRefused(f"a key or a name is no Unicode text: {error}") from error
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._queue.append((key, arguments, future))
        self._filled.set()
        return await future

    async def run(self) -> None:
        try:
            while True:
                await self._filled.wait()
                self._filled.clear()
                while self._queue:
                    await self._flush()
        finally:
            self._closed = True
            _fail([future for _, _, future in self._queue], BusUnavailable("the bus is closed"))

    async def _flush(self) -> None:
        key, arguments, waiting = self._gather()
        if not waiting:
            return
        try:
            replies = await self._script(key, [len(waiting), *arguments])
        except asyncio.CancelledError:
            _fail(waiting, BusUnavailable("the bus is closed"))
            raise
        except Exception as error:  # noqa: BLE001  belongs to those who wait, who raise it
            _fail(waiting, error)
            return
        if isinstance(replies, bytes):
            replies = replies.split(b"\n")
        for future, reply in zip(waiting, replies, strict=True):
            if not future.done():
                future.set_result(reply)

    def _gather(self) -> tuple[str, list[Argument], list[asyncio.Future[Reply]]]:
        arguments: list[Argument] = []
        waiting: list[asyncio.Future[Reply]] = []
        key = self._queue[0][0]
        while self._queue and (not waiting or len(arguments) + len(self._queue[0][1]) <= BATCH_ARGUMENTS):
            _, more, future = self._queue.popleft()
            if not future.cancelled():
                arguments.extend(more)
                waiting.append(future)
        return key, arguments, waiting


def _fail(waiting: Sequence[asyncio.Future[Reply]], error: Exception) -> None:
    for future in waiting:
        if not future.done():
            future.set_exception(error)
