"""A selection of the fault matrix (`python -m bench faults` runs all of it): nothing lost, nothing done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from bench.faults import process as fault_process
from bench.faults import server as fault_server
from bench.faults import wire as fault_wire
from bench.faults.proxy import Kind
from bench.faults.workload import LEASE_SECONDS, Outcomes
from tests.laboratory import Lab, RedisServer

WELL = Outcomes(lost=0, duplicate_effects=0)
Fault = Callable[[fault_server.FaultyServer], Awaitable[None]]
#: FaultResult at the same time, each on a server of its own.
TOGETHER = [fault_server.FAULTS[start : start + 3] for start in range(0, len(fault_server.FAULTS), 3)]


def _names(faults: Sequence[Fault]) -> list[str]:
    return [fault.__name__ for fault in faults]


@pytest.mark.parametrize("step", ["publish", "take", "acquire", "renew", "finish", "dead_letter", "release", "recover"])
async def test_a_broken_command_loses_nothing(redis_server: RedisServer, key_prefix: str, step: str) -> None:
    """Each command of the handler's path, cut off before and after Redis does it, or answered too late."""
    kinds: tuple[Kind, ...] = ("cut_before", "cut_after", "late")
    address = ("127.0.0.1", redis_server.port)
    trials = await asyncio.gather(
        *(fault_wire.run_trial(address, f"{key_prefix}:{kind}", step, kind, 1) for kind in kinds)
    )
    assert all(result.injected for result in trials)
    assert [result.outcomes for result in trials] == [WELL] * len(kinds)


async def test_a_killed_worker_is_replaced(redis_server: RedisServer, key_prefix: str) -> None:
    """SIGKILL at three moments: another worker has its entries within a lease and two seconds."""
    moments = [("take", "after"), ("renew", "after"), ("finish", "before")]
    address = ("127.0.0.1", redis_server.port)
    trials = await asyncio.gather(
        *(fault_process.run_trial(address, f"{key_prefix}:{step}", step, when, "SIGKILL") for step, when in moments)
    )
    assert all(result.injected for result in trials)
    assert [result.outcomes for result in trials] == [WELL] * len(moments)
    delays = [seconds for result in trials for seconds in result.takeover_seconds]
    assert delays
    assert max(delays) <= LEASE_SECONDS + 2


async def test_a_worker_that_was_stopped_does_no_harm_when_it_wakes(redis_server: RedisServer, key_prefix: str) -> None:
    """SIGSTOP for two leases, in the middle of its work: what it finishes then counts for nothing."""
    result = await fault_process.run_trial(("127.0.0.1", redis_server.port), key_prefix, "renew", "before", "SIGSTOP")
    assert result.injected
    assert result.outcomes == WELL


async def test_a_worker_asked_to_end_hands_back(redis_server: RedisServer, key_prefix: str) -> None:
    """SIGTERM: another worker begins with what it could not finish within a second."""
    result = await fault_process.run_trial(("127.0.0.1", redis_server.port), key_prefix, "renew", "after", "SIGTERM")
    assert result.outcomes == WELL
    assert result.handback_seconds
    assert all(seconds <= 1 for seconds in result.handback_seconds)


@pytest.mark.parametrize("faults", TOGETHER, ids=lambda faults: "-".join(_names(faults)))
async def test_trouble_of_the_server_loses_nothing(lab: Lab, key_prefix: str, faults: Sequence[Fault]) -> None:
    """Killed, stopped, paused, flushed, full, read-only, failed over: in the end each entry ended once."""
    trials = await asyncio.gather(
        *(fault_server.run_trial(lab, f"{key_prefix}:{fault.__name__}", fault, 0.3) for fault in faults)
    )
    assert {result.fault: result.outcomes for result in trials} == dict.fromkeys(_names(faults), WELL)
