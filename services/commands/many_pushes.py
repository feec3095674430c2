"""Commands for many pushes at once: those that are named, or all that the registry lacks."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from events.bus import BusClient
from events.streams import Streams
from services.commands.requests import PushAsked, ask_for_push
from services.core.images.references import Reference
from services.errors import BadInput, BadReference, NotFound, RegistryUnavailable, TransferFailed
from services.ports import Engine, Registry


class RefusedPush(msgspec.Struct, frozen=True, kw_only=True):
    """An image for which no push was requested, and why."""

    reference: str
    code: str
    message: str


async def ask_for_pushes(
    references: Sequence[str] | None,
    *,
    engine: Engine,
    registry: Registry,
    bus: BusClient,
    streams: Streams,
    source: str,
    actor: str = "",
    key: str | None = None,
) -> tuple[list[PushAsked], list[RefusedPush]]:
    """Publish `image.push_requested` for each; None: for every tag of the host's engine that the registry lacks.

    The same `key` again publishes the same events again, under the same ids. Raises Unavailable for the engine.
    """
    names = list(dict.fromkeys(references)) if references is not None else await _missing(engine, registry)
    asked: list[PushAsked] = []
    refused: list[RefusedPush] = []
    for number, name in enumerate(names):
        try:
            push = await ask_for_push(
                name,
                engine=engine,
                bus=bus,
                streams=streams,
                source=source,
                actor=actor,
                event_id=f"{key}.{number}" if key else None,
            )
        except (NotFound, BadInput) as problem:
            refused.append(RefusedPush(reference=name, code=problem.code, message=str(problem)))
        else:
            asked.append(push)
    return asked, refused


async def _missing(engine: Engine, registry: Registry) -> list[str]:
    """Tags of the host's engine under whose name the registry has nothing, or something else."""
    missing: list[str] = []
    for image in await engine.images():
        for name in image.references:
            try:
                reference = Reference.parse(name)
                found = await registry.manifest(reference.repository, reference.registry_tag)
            except BadReference:
                continue  # no name that a registry could have
            except (BadInput, TransferFailed, RegistryUnavailable):
                missing.append(name)  # not readable, or not to be asked now: the push finds out
            else:
                if found is None or (image.image_id is not None and found[1].body.config.digest != image.image_id):
                    missing.append(name)
    return sorted(missing)
