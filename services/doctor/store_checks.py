"""Checks of the registry as a store: whether a collector runs, and whether the disk under it is low."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from events.lease import Bus
from services.core.hosts.hosts import HostKeys
from services.core.store.pressure import DiskState, disk_state_key, host_disk_key
from services.doctor.findings import Note, Wrong

_ADVICE = "delete images (images rm, registry retention), collect (registry collect --now), or enlarge the disk"

_HOST_ADVICE = "free copies that the registry has (images reclaim, registry reclaim-rules), or enlarge the disk"


class StoreChecks:
    """`there` opens the bus, `group` checks the collector's group: both raise Note and Wrong themselves."""

    def __init__(
        self, prefix: str, *, there: Callable[[], Awaitable[Bus]], group: Callable[[], Awaitable[str]]
    ) -> None:
        self._prefix = prefix
        self._there = there
        self._group = group

    async def collector(self) -> str:
        """No collector is a remark: all but deletion works without one."""
        try:
            return await self._group()
        except Note:
            raise
        except Wrong as problem:
            raise Note(f"{problem}: nothing is deleted or collected", problem.advice) from problem

    async def disk_pressure(self) -> str:
        """What was last recorded of the registry's disk, and of those of the hosts' engines."""
        bus = await self._there()
        for host in await bus.members(HostKeys(self._prefix).all):
            of_host = (await host_disk_key(self._prefix, host).load(bus)).value
            if of_host is not None and of_host.low:
                told = f"the disk of the engine of host {host} is low {_since(of_host)}"
                raise Wrong(f"{told}; room was made {_times(of_host.rounds)}", _HOST_ADVICE)
        state = (await disk_state_key(self._prefix).load(bus)).value
        if state is None:
            return "the collector has never seen the registry's disk low"
        if state.low:
            raise Wrong(f"the registry's disk is low {_since(state)}; room was made {_times(state.rounds)}", _ADVICE)
        return f"the registry's disk is not low {_since(state)}"


def _since(state: DiskState) -> str:
    at = datetime.fromtimestamp(state.since, UTC).isoformat(sep=" ", timespec="seconds")
    return f"since {at}: {state.free_bytes / 1e9:.1f} of {state.total_bytes / 1e9:.1f} GB were free at the last report"


def _times(rounds: int) -> str:
    return "once" if rounds == 1 else f"{rounds} times"
