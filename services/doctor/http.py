"""The checks of `doctor` for the HTTP API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from services.api.route import DoctorFinding
from services.doctor.checks import Checks
from services.doctor.replication import replication_of
from services.resources import Resources


def doctor_of(resources: Resources) -> Callable[[], Awaitable[Sequence[DoctorFinding]]]:
    """What runs all checks of a process's dependencies."""

    async def run() -> Sequence[DoctorFinding]:
        found = await Checks(
            resources.settings,
            bus=resources.bus,
            concerns=resources.concerns,
            engine=resources.host_engine,
            registry=resources.registry,
            connections=resources.connections,
            replication=lambda: replication_of(resources),
        ).run()
        return [DoctorFinding(state=one.state, what=one.what, found=one.found, advice=one.advice) for one in found]

    return run
