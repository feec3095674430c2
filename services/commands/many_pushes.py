"""Commands for many pushes at once: those that are named, or all that the registry lacks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from events.bus import BusClient, Outcome
from events.envelope import new_id
from events.records import ANY
from events.streams import Streams
from services.commands.host_choice import check_host
from services.commands.requests import ask_for_push
from services.core.images.push_batches import KEPT_SECONDS, BatchPush, PushBatch, RefusedPush, batch_key
from services.core.images.references import Reference
from services.errors import BadInput, BadReference, NotFound, RegistryUnavailable, TransferFailed
from services.ports import Engine, Registry


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
    missing: Sequence[str] | None = None,
    host: str | None = None,
) -> PushBatch:
    """Publish `image.push_requested` for each; None: for every tag of the host's engine that the registry lacks.

    The batch is recorded. The same `key` again publishes the same events again, under the same ids. `missing` are the
    tags that the registry lacks, where that is known; else both are asked. `host`: whose images they are; None: each is
    this host's, or of a host that holds it. Raises NotFound for an unknown host, Unavailable for one that is away.
    """
    if host is not None:
        await check_host(bus, streams, host)
    names = list(dict.fromkeys(references)) if references is not None else missing
    if names is None:
        names = await _missing(engine, registry)
    asked, refused = list[BatchPush](), list[RefusedPush]()
    for number, name in enumerate(names):
        try:
            event_id = f"{key}.{number}" if key else None
            push = await ask_for_push(
                name, engine=engine, bus=bus, streams=streams, source=source, actor=actor, event_id=event_id, host=host
            )
        except (NotFound, BadInput) as problem:
            refused.append(RefusedPush(reference=name, code=problem.code, message=str(problem)))
        else:
            asked.append(BatchPush(reference=push.reference, id=push.id))
    batch = PushBatch(
        id=key or new_id(),
        asked_at=datetime.now(UTC),
        actor=actor,
        all_missing=references is None,
        pushes=tuple(asked),
        refused=tuple(refused),
    )
    write = batch_key(streams.prefix, batch.id).write(batch, expected=ANY, expires_seconds=KEPT_SECONDS)
    await bus.commit(Outcome(records=(write,)))
    return batch


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
