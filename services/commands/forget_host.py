"""Forget a host that no longer exists: its record, that it holds images, and that it mounts layers."""

from __future__ import annotations

from contextlib import suppress

from events.bus import IndexWrite, Outcome, RecordConflict
from events.lease import Bus
from events.records import ANY
from events.streams import Streams
from services.core.hosts.held_images import HeldKeys
from services.core.hosts.hosts import HostKeys
from services.core.mounts.pins import MountKeys
from services.errors import HostAlive, NotFound

_TRIES = 4


async def forget_host(bus: Bus, streams: Streams, host: str, *, force: bool = False) -> None:
    """Remove a host's records and drop the entries of its inbox.

    Raises HostAlive while it sends heartbeats, unless `force`; NotFound where there is nothing to forget.
    """
    keys, held = HostKeys(streams.prefix), HeldKeys(streams.prefix)
    (beat,) = await bus.beats([streams.host_alive(host)])
    if beat is not None and not force:
        raise HostAlive(
            f"the registry-pusher of host {host} is alive and would report it again: stop the host first, or force it",
            hint="the same command with --force",
        )
    names = await bus.members(held.of_host(host))
    mounts = MountKeys(streams.prefix)
    if not names and host not in {*await bus.members(keys.all), *await bus.members(mounts.hosts)}:
        raise NotFound(f"there is no host {host}", hint="cyroid-images hosts ls")
    for name in names:
        await _drop(bus, held, name, host)
    records, index = [keys.record(host).delete(expected=ANY)], [IndexWrite(keys.all, host, None)]
    (mounter,) = await bus.beats([streams.mounter_alive(host)])
    if beat is None and mounter is None:  # of a host that is there, the collector keeps the blobs of mounted layers
        records.append(mounts.host(host).delete(expected=ANY))
        index.append(IndexWrite(mounts.hosts, host, None))
    await bus.commit(Outcome(records=tuple(records), index=tuple(index)))
    await bus.trim(streams.host_inbox(host), 0.0)


async def _drop(bus: Bus, held: HeldKeys, reference: str, host: str) -> None:
    """Take the host out of the record of one image. Raises RecordConflict where that changes all the time."""
    for attempt in range(_TRIES):
        stored = await held.images(reference).load(bus)
        gone = IndexWrite(held.of_host(host), reference, None)
        outcome = Outcome(index=(gone,))
        if stored.value is not None and host in stored.value.hosts:
            after = stored.value.dropped(host)
            outcome = held.written(stored, after, host, after.latest)
        if attempt + 1 == _TRIES:
            await bus.commit(outcome)
            return
        with suppress(RecordConflict):
            await bus.commit(outcome)
            return
