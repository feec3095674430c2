"""ARCHITECTURE.md states what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from bench.simulate.case import simulate
from events.messages import DeploymentRequested, Message, PullRequested, TransferCancelled
from services.bootstrap import ROLES
from services.core.ranges.heartbeat import AgentHeartbeat
from services.resources import open_resources
from services.settings import Settings
from tests.simulation import Cluster as SimulatedCluster
from tests.simulation import FakedLoop, eventually, published
from tests.unit.services.twins import Cluster

ROOT = Path(__file__).parents[2]
CLASSES = {kind.__name__: str(kind.__struct_config__.tag).rsplit(".", 1)[0] for kind in Message.__args__}

#: Simulated runs in which every type has to be seen; each has other faults, and it ends as soon as all were seen.
SEEDS = (25, 11, *range(1, 11))
#: Roles that the simulation runs: what they publish is observed.
SIMULATED = {"registry-pusher", "deployer", "agent", "tracker"}
#: Published only where content of the registry is damaged, or a disk is nearly full, which no simulated run has.
DAMAGE = {"registry.check_requested", "registry.disk_pressure"}
#: Published only where somebody asks, or a rule allows it, which is nobody in the simulation.
HOST_IMAGES = {
    *("image.adopted", "image.push_requested", "image.reclaim_requested", "image.reclaimed", "image.fetched"),
}
#: Published only where a layer-mounter serves: each of them in some runs, and not all in these.
MOUNTS = {"layers.mount_requested", "layers.unmount_requested", "layers.released"}
#: For the others: the modules that make their messages, below services/.
PLACES = {
    "build, import, promote": ("ingest/*.py",),
    "layer-mounter": ("layer_mounter/answers.py",),
    "tar-server": ("tar_server/*.py",),
    "agent-pool": ("agent/pool.py", "registry_pusher/range_push.py", "registry_pusher/range_uploads.py"),
    "range-gateway": ("range_gateway/reports.py",),  # it also passes on what agents publish
    "collector": ("collector/*.py", "runtime/disk_watch.py"),
    "api": ("api/*.py", "commands/prompts.py", "commands/requests.py"),
}


def _rows() -> list[tuple[str, str, set[str], set[str]]]:
    """Role, group, consumes, publishes of every row of the table."""
    rows = []
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0] not in {"role", "---"}:
            role, group, consumes, publishes = cells
            rows.append((role, group, set(re.findall(r"[\w.]+", consumes)), set(re.findall(r"[\w.]+", publishes))))
    return rows


def _published_column() -> dict[str, set[str]]:
    """Role → types of the fourth column, of all rows of that role."""
    found: dict[str, set[str]] = {}
    for role, _, _, publishes in _rows():
        found.setdefault(role, set()).update(publishes)
    return found


async def test_every_group_consumes_what_the_table_lists(tmp_path: Path) -> None:
    """The handler tables of all roles, composed as they run, are the table's third column."""
    consumed: dict[tuple[str, str], set[str]] = {}
    settings = Settings(range_id="r1", spool_folder=str(tmp_path), registry_storage=str(tmp_path))
    async with open_resources(settings, Cluster().adapters) as opened:
        for name, make in ROLES.items():
            for subscription in (await make(opened)).subscriptions():
                tags = {str(kind.__struct_config__.tag).rsplit(".", 1)[0] for kind in subscription.handlers}
                consumed.setdefault((name, subscription.group), set()).update(tags)
    assert consumed == {(role, group): consumes for role, group, consumes, _ in _rows() if group}


def test_every_role_is_in_the_table() -> None:
    """Roles that consume nothing have a row as well."""
    named = {role.strip() for row in _rows() for role in row[0].split(",")}
    assert set(ROLES) <= named


async def _said(cluster: SimulatedCluster, wire: str) -> bool:
    return any(wire in types for types in (await published(cluster)).values())


def test_simulated_roles_publish_what_the_table_lists_and_nothing_else() -> None:
    """Observed in runs with faults, cancels, retries and plans, and in one of an unknown image, of two agents, and of a
    transfer that was cancelled before its agent took it up."""

    async def unknown_image() -> dict[str, set[str]]:
        async with SimulatedCluster() as cluster:
            request = DeploymentRequested(deployment_id="d1", range_id="r0", images=("docker.io/library/none:1",))
            await cluster.say(cluster.streams.deployments, request)
            await cluster.ended("d1")
            other = AgentHeartbeat(incarnation="other", engine_id="other", displaced_by="r0.1")
            await cluster.bus.beat(cluster.streams.alive("r0"), other.encode(), 4.0)
            await eventually(lambda: cluster.bus.members("cyroid:index:contested"))
            inbox = cluster.streams.inbox("r1")
            await cluster.say(inbox, TransferCancelled(transfer_id="t1"))
            await eventually(lambda: cluster.bus.load(cluster.streams.cancelled("r1", "t1")))
            await cluster.say(inbox, PullRequested(transfer_id="t1", reference="none:1", image_id="sha256:" + "0" * 64))
            await eventually(lambda: _said(cluster, "image.failed"))
            return await published(cluster)

    loop = FakedLoop()
    observed = loop.run_until_complete(unknown_image())
    loop.close()
    absent = {"registry-pusher": HOST_IMAGES | DAMAGE}
    column = {
        role: types - MOUNTS - absent.get(role, set())
        for role, types in _published_column().items()
        if role in SIMULATED
    }
    for seed in SEEDS:
        for role, types in simulate(seed).published.items():
            observed.setdefault(role, set()).update(types)
        if all(observed[role] >= types for role, types in column.items()):
            break
    for role in ("operator", "layer-mounter"):
        observed.pop(role, None)
    assert {role: types - MOUNTS for role, types in observed.items()} == column


def test_other_roles_make_the_messages_that_the_table_lists_and_no_others() -> None:
    """Message classes that their modules use, and do not only consume, are the types of the fourth column."""
    column = _published_column()
    assert set(column) == SIMULATED | set(PLACES)
    for role, places in PLACES.items():
        made = {
            CLASSES[node.id]
            for place in places
            for path in (ROOT / "services").glob(place)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Name) and node.id in CLASSES
        }
        consumed = {tag for name, _, consumes, _ in _rows() if name == role for tag in consumes}
        assert made - (consumed - column[role]) == column[role], role
