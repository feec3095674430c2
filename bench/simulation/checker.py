"""Checker: the invariants that hold once an installation has come to rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Protocol

from bench.simulation.cluster import Cluster
from events.messages import DeploymentFailed, ImageReady
from services.adapters.memory_layer_placer import missing
from services.collector.pins import mounted_digests
from services.core.deployments.deployment import Deployment, parse_transfer_id
from services.core.images.read_model import RangeInventory, ReadModelKeys
from services.core.ranges.ranges import DesiredImages

#: Reasons that no fault of these accounts for: the host has every image all the time.
IMPOSSIBLE = frozenset({"image_not_found", "platform_mismatch", "wrong_content", "unexpected"})

#: Why faults like these may leave a dead letter: workers that were killed over it; a cancel or retry whose request was
#: deferred for longer than it waits; a push of content that was built over.
EXPLAINED = frozenset({"crashed", "not_found", "rebuilt"})


class Findings(Protocol):
    """Collects the problems found."""

    count: Counter[str]
    reasons: Counter[str]

    def bad(self, kind: str, what: str) -> None: ...


class Checker:
    """Checks everything that a run left. `contents`: by reference, what the host ever had under it.

    lost    deployments that nobody knows, or whose end was never told
    wrong   ready without the right content; ended in two ways; something pushed twice; a name, a slot, a place in a
            queue, a spool, an operation of an engine, a mounted layer left behind; one that an engine uses and the
            host does not show; content that a recreated range did not get back; a read model that is not what is
    """

    def __init__(self, findings: Findings, cluster: Cluster, contents: Mapping[str, Set[str]]) -> None:
        self._findings = findings
        self._cluster = cluster
        self._contents = contents

    async def at_everything(self, asked: Sequence[str]) -> None:
        cluster, bad = self._cluster, self._findings.bad
        for deployment_id in asked:
            found = await cluster.deployment(deployment_id)
            if found is None:
                await self._at_given_up(deployment_id)
            elif not found.open:
                await self._at_deployment(found)
        await self._at_ranges()
        await self._at_mounts()
        self._at_host()
        self._at_processes()
        for digest, times in Counter(one[:2] for one in cluster.registry.uploaded).items():
            if times > 1:
                bad("wrong", f"{digest} was pushed {times} times")
        for key in (cluster.keys.queue, cluster.keys.active, *map(cluster.keys.push, self._contents)):
            if left := await cluster.bus.members(key):
                bad("wrong", f"left in {key}: {left}")
        if left := [file.name for file in cluster.spools.iterdir()]:
            bad("wrong", f"left in the spool folder: {left}")
        async for letter in cluster.bus.tail([cluster.streams.dead], after="0", follow=False):
            if (reason := letter.fields["reason"].decode()) not in EXPLAINED:
                bad("wrong", f"a dead letter, {reason}: {letter.fields['message'].decode()}")

    async def _at_given_up(self, deployment_id: str) -> None:
        """A request that killed whoever took it up has no record; it failed, and that was told, once."""
        ends = await self._cluster.ends(deployment_id)
        if [isinstance(end, DeploymentFailed) and end.error and end.error.code for end in ends] != ["crashed"]:
            self._findings.bad("lost", f"nobody knows {deployment_id}, of its end was told: {ends}")
            return
        self._findings.count["failed"] += 1
        self._findings.reasons["crashed"] += 1

    async def _at_deployment(self, found: Deployment) -> None:
        """Each round of it ended once, and told so."""
        bad = self._findings.bad
        ends = await self._cluster.ends(found.deployment_id)
        self._findings.count[found.state] += 1
        if not ends:
            bad("lost", f"the end of {found.deployment_id} was never told")
        if len({type(one) for one in ends}) > found.round:
            bad("wrong", f"{found.deployment_id} ended in {len(ends)} ways")
        for image in found.images:
            if image.state == "ready" and image.how is not None:
                self._findings.count[image.how] += 1
            if image.error is not None:
                self._findings.reasons[image.error.code] += 1
                if image.state == "failed" and image.error.code in IMPOSSIBLE:
                    bad("wrong", f"{found.deployment_id}: {image.error.message}")
            if image.state == "ready" and image.image_id not in self._contents[image.reference]:
                bad("wrong", f"{found.deployment_id}: {image.reference} is {image.image_id}")

    async def _at_ranges(self) -> None:
        """What was ready is there, under its name and no other, also after the range was recreated."""
        cluster, bad = self._cluster, self._findings.bad
        everything = [await cluster.deployment(one) for one in await cluster.bus.members(cluster.keys.all)]
        for range_id, engine in cluster.engines.items():
            if engine.working:
                bad("wrong", f"{range_id} is still at {engine.working}")
            for image in await engine.images():
                if image.repo_digests:
                    bad("wrong", f"{range_id} kept the names {image.repo_digests}")
                if odd := [name for name in image.references if name not in self._contents]:
                    bad("wrong", f"{range_id} kept the names {odd}")
            last = await self._last_ready(range_id)
            wanted, held = await self._wanted(range_id), await self._held(range_id)
            if lacking := self._delivered(everything, range_id) - wanted.images.keys():
                bad("wrong", f"{range_id} is not known to want {lacking}")
            for reference, due in wanted.images.items():
                there = await engine.inspect(reference)
                if there is None or there.diff_ids not in (due.diff_ids, last.get(reference)):
                    bad("wrong", f"{range_id} should have {due}, it has {there}")
                elif there.diff_ids == due.diff_ids and held.images.get(reference) not in (due.image_id, None):
                    bad("wrong", f"the tracker says that {range_id} has {held.images.get(reference)} as {reference}")

    async def _at_mounts(self) -> None:
        """Each engine is shown what its layers stand on, and nothing else; the collector knows the blobs."""
        cluster, bad = self._cluster, self._findings.bad
        shown = await cluster.mounts.shown()
        for range_id, engine in cluster.engines.items():
            if lacking := await missing(engine, range_id, cluster.mounts):
                bad("wrong", f"layers of {range_id} stand on what is not shown: {lacking}")
            held = set(shown[range_id].layers) if range_id in shown else set[str]()
            if leaked := held - set(engine.store.mounted):
                bad("wrong", f"{range_id} is shown layers that it does not use: {leaked}")
            if engine.store.placed.open:
                bad("wrong", f"{range_id} holds mounted layers for {list(engine.store.placed.open)}")
        needed = {digest for one in shown.values() for digest in one.digests}
        pinned = {f"sha256:{digest}" for digest in await mounted_digests(cluster.bus, cluster.streams.prefix)}
        if needed != pinned:
            bad("wrong", f"the collector is told to keep {pinned}, mounted are {needed}")

    def _delivered(self, everything: Sequence[Deployment | None], range_id: str) -> set[str]:
        """References that a deployment brought there which succeeded."""
        here = [one for one in everything if one is not None and one.range_id == range_id and one.state == "succeeded"]
        return {image.reference for one in here for image in one.images}

    async def _last_ready(self, range_id: str) -> dict[str, tuple[str, ...]]:
        """By reference, the content that came last, if it came by a deployment that did not succeed as a whole.

        It is there, and is not what the range should have.
        """
        last: dict[str, tuple[str, ...]] = {}
        for message in await self._cluster.said(self._cluster.streams.outbox(range_id)):
            parsed = parse_transfer_id(message.transfer_id) if isinstance(message, ImageReady) else None
            if isinstance(message, ImageReady) and parsed is not None:
                found = await self._cluster.deployment(parsed[0])
                if found is not None:
                    image = found.images[parsed[1]]
                    last.pop(image.reference, None)
                    if found.state != "succeeded":
                        last[image.reference] = image.diff_ids
        return last

    async def _wanted(self, range_id: str) -> DesiredImages:
        stored = await self._cluster.range_keys.wanted(range_id).load(self._cluster.bus)
        return stored.value or DesiredImages(range_id=range_id)

    async def _held(self, range_id: str) -> RangeInventory:
        stored = await ReadModelKeys("cyroid").holdings(range_id).load(self._cluster.bus)
        return stored.value or RangeInventory(range_id=range_id)

    def _at_processes(self) -> None:
        """None ended but by being killed."""
        for process in self._cluster.processes.values():
            for crash in process.crashes:
                self._findings.bad("wrong", f"{process.name} ended by itself: {crash!r}")

    def _at_host(self) -> None:
        host, bad = self._cluster.host, self._findings.bad
        if host.working:
            bad("wrong", f"the host's engine is still at {host.working}")
        if odd := [name for name in host.store.names if name not in self._contents]:
            bad("wrong", f"the host kept the names {odd}")
