"""Plans in memory: how many images of each are in the registry, and how many ranges are ready."""

from __future__ import annotations

from datetime import datetime

from events.lease import Bus
from events.messages import DeploymentPlanned
from services.core.deployments.plans import Plan, PlanKeys, plan_state
from services.queries.read_model.deployments import Deployments
from services.queries.read_model.images import RegistryImages
from services.queries.read_model.listing import Listing
from services.queries.read_model.pushes import Pushes
from services.queries.read_model.record_follower import RecordFollower
from services.queries.read_model.rows import PlanRow
from services.queries.read_model.table import Table

_GOES_ON = "under way"


class Plans:
    """The table of plans; those that go on are counted again with every look."""

    def __init__(self, bus: Bus, prefix: str, images: RegistryImages, deployments: Deployments, pushes: Pushes) -> None:
        self._bus = bus
        self._keys = PlanKeys(prefix)
        self._images, self._deployments, self._pushes = images, deployments, pushes
        self._follower = RecordFollower(bus, self._keys.record)
        self._plans: dict[str, Plan] = {}
        self._announced: set[str] = set()
        self.table = Table[PlanRow](
            {"announced": lambda row: row.announced_at.timestamp(), "name": lambda row: row.plan_id}
        )
        self.listing = Listing(
            table=self.table,
            text=lambda row: row.plan_id,
            sorts={"announced": "desc", "name": "asc"},
            state=lambda row: row.state,
        )

    async def sync(self) -> set[str]:
        """Take over what changed. Returns the ids of rows that did. Raises BusError."""
        ids = set(await self._bus.members(self._keys.all))
        found = await self._follower.changes(ids | self._plans.keys())
        for ident, plan in found.items():
            if plan is None:
                self._plans.pop(ident, None)
            else:
                self._plans[ident] = plan
        self._announced -= self._plans.keys()
        gone = set(self.table.rows) - self._plans.keys() - self._announced
        changed = {ident for ident in gone if self.table.remove(ident)}
        failed = self._failed_pushes()
        for ident, plan in self._plans.items():
            row = self.table.rows.get(ident)
            if (row is None or row.state == _GOES_ON or ident in found) and self.table.put(
                ident, self._row(plan, failed)
            ):
                changed.add(ident)
        return changed

    def names(self) -> set[str]:
        """The images that some plan names."""
        return {name for plan in self._plans.values() for name in plan.images}

    def announced(self, message: DeploymentPlanned, at: datetime) -> bool:
        """Show a plan that no deployer has made a record of yet. Whether it is one."""
        if message.plan_id in self._plans:
            return False
        row = PlanRow(
            plan_id=message.plan_id,
            state="announced",
            announced_at=at,
            images=len(message.images),
            ranges=len(message.range_ids),
        )
        self._announced.add(message.plan_id)
        return self.table.put(message.plan_id, row)

    def _row(self, plan: Plan, failed: dict[str, float]) -> PlanRow:
        images = [self._registry(plan, reference, failed) for reference in plan.images]
        ranges = [self._range(plan, range_id) for range_id in plan.range_ids]
        return PlanRow(
            plan_id=plan.plan_id,
            state=plan_state(images, ranges),
            announced_at=plan.announced_at,
            images=len(images),
            there=images.count("there"),
            ranges=len(ranges),
            ready_ranges=ranges.count("succeeded"),
        )

    def _registry(self, plan: Plan, reference: str, failed: dict[str, float]) -> str:
        entry = self._images.content_of(reference)
        if failed.get(reference, 0.0) >= plan.announced_at.timestamp():
            return "failed"
        return "there" if entry is not None and entry.pushed_at >= plan.announced_at else "waiting"

    def _range(self, plan: Plan, range_id: str) -> str:
        ident = plan.deployments.get(range_id)
        if ident is None:
            return "away"
        row = self._deployments.table.rows.get(ident)
        return "requested" if row is None else row.state

    def _failed_pushes(self) -> dict[str, float]:
        """Reference → when its latest push failed, if that one failed."""
        latest: dict[str, tuple[float, bool]] = {}
        for row in self._pushes.table.rows.values():
            if row.ended_at is not None:
                end = (row.ended_at.timestamp(), row.state == "failed")
                latest[row.reference] = max(end, latest.get(row.reference, end))
        return {reference: at for reference, (at, is_failure) in latest.items() if is_failure}
