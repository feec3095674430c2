"""Running roles: a clean stop, a hurried stop, and a part that fails."""

import asyncio
import os
import signal
from collections.abc import Sequence

import pytest

from events.bus import BusError, BusRefused
from events.subscription import Handlers, Subscription
from services.errors import EngineUnavailable
from services.runtime.runner import Role, RoleFailed, run_roles, wait_until_there
from services.runtime.shutdown import Stop, signals


class _Role:
    def __init__(self, name: str, *, listens: int = 0, fails: Exception | None = None) -> None:
        self.name = name
        self.running = asyncio.Event()
        self.ended = False
        self._listens = listens
        self._fails = fails

    def subscriptions(self) -> Sequence[Subscription]:
        return [
            Subscription(group=self.name, streams=lambda: ("s",), handlers=Handlers(), dead_stream="d")
            for _ in range(self._listens)
        ]

    async def run(self) -> None:
        if self._fails is not None:
            raise self._fails
        self.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


class _Listener:
    """A worker whose handler takes until it is told to finish."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.graces: list[float] = []
        self.draining = asyncio.Event()
        self.finish = asyncio.Event()
        self._error = error

    async def run(self) -> None:
        await self.finish.wait()

    async def drain(self, grace_seconds: float) -> None:
        self.graces.append(grace_seconds)
        self.draining.set()
        if self._error is not None:
            raise self._error
        if grace_seconds == 0:
            self.finish.set()
        await self.finish.wait()


async def _started(role: _Role, listener: _Listener, stop: Stop) -> asyncio.Task[None]:
    task = asyncio.create_task(
        run_roles([role], listener=lambda role, subscription: listener, grace_seconds=20, stop=stop)
    )
    async with asyncio.timeout(5):
        await role.running.wait()
    return task


async def test_the_first_request_lets_work_end() -> None:
    """One request drains with the grace, and the run ends when the work does."""
    role, listener, stop = _Role("a", listens=1), _Listener(), Stop()
    task = await _started(role, listener, stop)
    stop.ask()
    async with asyncio.timeout(5):
        await listener.draining.wait()
        assert not task.done()
        listener.finish.set()
        await task
    assert listener.graces == [20]
    assert role.ended


async def test_the_second_request_hands_back_at_once() -> None:
    """A second request does not wait for the work."""
    role, listener, stop = _Role("a", listens=1), _Listener(), Stop()
    task = await _started(role, listener, stop)
    stop.ask()
    async with asyncio.timeout(5):
        await listener.draining.wait()
        stop.ask()
        await task
    assert listener.graces == [20, 0]


async def test_stopping_without_redis_still_stops() -> None:
    """When work cannot be handed back, the process ends all the same."""
    role, listener, stop = _Role("a", listens=1), _Listener(error=BusError("Redis is away")), Stop()
    task = await _started(role, listener, stop)
    stop.ask()
    async with asyncio.timeout(5):
        await task
    assert role.ended


async def test_one_that_fails_stops_all_and_is_named() -> None:
    """The error says which role it was and why; the others are ended."""
    good, bad = _Role("good"), _Role("bad", fails=EngineUnavailable("the engine is away"))
    roles: list[Role] = [good, bad]
    with pytest.raises(RoleFailed, match="bad stopped: the engine is away"):
        async with asyncio.timeout(5):
            await run_roles(roles, listener=lambda role, subscription: _Listener(), grace_seconds=1, stop=Stop())
    assert good.ended or not good.running.is_set()


async def test_a_programming_error_keeps_its_traceback() -> None:
    """Only expected errors are wrapped in a line."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.timeout(5):
            await run_roles(
                [_Role("bad", fails=ZeroDivisionError("oops"))],
                listener=lambda role, subscription: _Listener(),
                grace_seconds=1,
                stop=Stop(),
            )
    assert caught.group_contains(ZeroDivisionError)


async def test_signals_ask_to_stop() -> None:
    """SIGTERM is the first request, another one the second; outside, the handlers are gone."""
    stop = Stop()
    async with signals(stop), asyncio.timeout(5):
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.asked()
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.insisted()
    assert not asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_waiting_ends_when_it_answers() -> None:
    """A dependency that comes up later is waited for."""
    answers = iter([False, False, True])

    async def ping() -> None:
        if not next(answers):
            raise BusError("connection refused")

    async with asyncio.timeout(5):
        assert await wait_until_there(ping, "Redis", stop=Stop(), pause_seconds=0.001)


async def test_waiting_does_not_help_against_a_refusal() -> None:
    """A wrong user is told at once."""

    async def ping() -> None:
        raise BusRefused("NOPERM")

    with pytest.raises(BusRefused):
        await wait_until_there(ping, "Redis", stop=Stop())


async def test_waiting_ends_when_asked_to_stop() -> None:
    """A process that waits for Redis still obeys SIGTERM."""

    async def ping() -> None:
        raise BusError("connection refused")

    stop = Stop()
    task = asyncio.create_task(wait_until_there(ping, "Redis", stop=stop, pause_seconds=60))
    stop.ask()
    async with asyncio.timeout(5):
        assert not await task
