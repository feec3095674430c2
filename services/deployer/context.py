"""Context that the parts of the deployer share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from events.bus import BusClient
from events.streams import Streams
from services.core.deployments.deployment import Policy
from services.deployer.outcomes import OutcomeWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployerContext:
    """The shared context. `clock` gives aware times."""

    bus: BusClient
    streams: Streams
    writer: OutcomeWriter
    policy: Policy
    clock: Callable[[], datetime]
