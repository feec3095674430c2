"""Runs composed roles until told to stop.

A role is a table of handlers on some streams, plus at most one long-running task of its own. The runner starts one
worker per subscription and each role's own task, all in one task group, so that

* the first SIGTERM (or Ctrl-C) stops reading, lets the work under way end within the grace, and releases the rest,
* a second one releases everything at once,
* one part that fails stops the whole process with a line that names it: a supervisor restarts the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from events.bus import BusError, BusRefused, HandlingError
from events.subscription import Subscription
from events.task_group import TaskGroup
from services.errors import CyroidError
from services.runtime.shutdown import Stop
from services.runtime.telemetry import get_logger

log = get_logger(role="runner")


class Role(Protocol):
    """One part of the system that acts. Composed in `services.bootstrap`, never by another role."""

    @property
    def name(self) -> str:
        """The name in `cyroid-images serve NAME`, and the first half of the envelope's `source`."""

    def subscriptions(self) -> Sequence[Subscription]:
        """The streams it consumes; none for a role that only serves HTTP."""

    async def run(self) -> None:
        """Own long-running work (a server, a heartbeat, a reconciler); ends only by cancellation, or at once."""


@runtime_checkable
class Drains(Protocol):
    """A role whose work under way needs a grace to end."""

    async def drain(self, grace_seconds: float) -> None:
        """Begin nothing more, let work end within the grace, release the rest; 0 releases at once."""


class Listener(Drains, Protocol):
    """The interface of a worker (`events.worker.worker.Worker`) that the runner uses."""

    async def run(self) -> None:
        """Read and handle until cancelled or drained."""


class RoleFailed(CyroidError):
    """A part of the process stopped by itself, so the process does."""

    code = "role_failed"


async def run_roles(
    roles: Sequence[Role],
    *,
    listener: Callable[[Role, Subscription], Listener],
    grace_seconds: float,
    stop: Stop,
) -> None:
    """Run `roles` until `stop` is asked. Raises RoleFailed when one of them stops by itself with an error.

    A role that runs others (it has a `drain`) is drained together with the workers.
    """
    listeners = [listener(role, subscription) for role in roles for subscription in role.subscriptions()]
    owners = [role.name for role in roles for _ in role.subscriptions()]
    try:
        async with TaskGroup() as group:
            tasks = [group.create_task(_named(role.name, role.run())) for role in roles]
            tasks += [group.create_task(_named(owner, one.run())) for owner, one in zip(owners, listeners, strict=True)]
            log.info("running", roles=[role.name for role in roles], workers=len(listeners))
            await stop.asked()
            log.info("stopping", grace_seconds=grace_seconds)
            await _drain([*listeners, *(role for role in roles if isinstance(role, Drains))], grace_seconds, stop)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as problems:
        failed = next((one for one in _leaves(problems) if isinstance(one, RoleFailed)), None)
        if failed is None:
            raise
        raise failed from problems
    log.info("stopped")


async def _named(name: str, work: Awaitable[None]) -> None:
    """Run one part; an error is raised with the part's name."""
    try:
        await work
    except (HandlingError, BusError, OSError) as problem:
        raise RoleFailed(f"{name} stopped: {problem}") from problem


async def _drain(working: Sequence[Drains], grace_seconds: float, stop: Stop) -> None:
    """Drain all at once; a second request to stop ends the grace."""

    polite = asyncio.create_task(_drain_all(working, grace_seconds))
    hurry = asyncio.create_task(stop.insisted())
    try:
        await asyncio.wait({polite, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not polite.done():
            log.info("stopping at once", why="asked a second time")
            await _drain_all(working, 0)
        await polite
    finally:
        for task in (polite, hurry):
            task.cancel()
        await asyncio.wait({polite, hurry})


async def _drain_all(working: Sequence[Drains], grace_seconds: float) -> None:
    """Drain all. Entries that cannot be released (Redis is unavailable) are taken over when their leases end."""
    results = await asyncio.gather(*(one.drain(grace_seconds) for one in working), return_exceptions=True)
    for result in results:
        if isinstance(result, BusError | OSError):
            log.warning(
                "entries were not released, other workers take them over when their leases end", why=str(result)
            )
        elif isinstance(result, BaseException):
            raise result


def _leaves(problems: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for problem in problems.exceptions:
        if isinstance(problem, BaseExceptionGroup):
            yield from _leaves(problem)
        else:
            yield problem


async def wait_until_there(
    ping: Callable[[], Awaitable[None]], what: str, *, stop: Stop, pause_seconds: float = 1.0
) -> bool:
    """Wait until a dependency answers; log once that it waits, and once that it answers.

    False if asked to stop meanwhile. Raises BusRefused: waiting does not help against a wrong user or a missing
    right.
    """
    waiting = False
    while True:
        try:
            await ping()
        except BusRefused:
            raise
        except (HandlingError, BusError, OSError) as problem:
            if not waiting:
                log.warning(f"waiting for {what}", why=str(problem))
            waiting = True
        else:
            if waiting:
                log.info(f"{what} is there")
            return True
        try:
            async with asyncio.timeout(pause_seconds):
                await stop.asked()
        except TimeoutError:
            continue
        return False
