"""Readiness of the role that replies: a command tells at once that no process serves it, before it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.cli.output import talk

if TYPE_CHECKING:
    from services.resources import Resources


async def tell_if_unserved(resources: Resources, role: str) -> None:
    """Print to stderr that the command waits for a role which no process serves now. Raises BusError."""
    from services.runtime.heartbeat import serving

    if role not in await serving(await resources.bus(), resources.streams.prefix):
        talk(f"no process serves the role {role}: the command waits for one (cyroid-images serve {role})")
