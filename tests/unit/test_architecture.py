"""ARCHITECTURE.md says what the code does."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from events.messages import Message
from services import parts
from services.bootstrap import ROLES
from services.parts import open_parts
from services.settings import Settings
from tests.unit.services.twins import World

ROOT = Path(__file__).parents[2]
CLASSES = {str(kind.__struct_config__.tag).rsplit(".", 1)[0]: kind for kind in Message.__args__}

#: Where a role's messages are made, below services/.
PLACES = {
    "build, import, promote": ("build.py", "importer.py", "promote.py"),
    "registry-pusher": ("registry_pusher.py", "**/image_push.py"),
    "deployer": ("deployer.py", "deploying/*.py", "core/deployment*.py"),
    "agent": ("agent/*.py",),
    "tracker": ("tracker.py",),
    "tar-server, agent-pool": ("tar_server.py", "agent_pool.py"),
    "api": ("api/*.py", "asking.py"),
}


def _rows() -> list[tuple[str, str, set[str], set[str]]]:
    """Role, group, hears, says of every row of the table."""
    rows = []
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0] not in {"role", "---"}:
            role, group, hears, says = cells
            rows.append((role, group, set(re.findall(r"[\w.]+", hears)), set(re.findall(r"[\w.]+", says))))
    return rows


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twins behind every door."""
    world = World()

    def opens(twin: object) -> Callable[..., Any]:
        @asynccontextmanager
        async def opened(*_: object) -> AsyncIterator[object]:
            yield twin

        return opened

    monkeypatch.setattr(parts, "open_bus", opens(world.bus))
    monkeypatch.setattr(parts, "open_engine", opens(world.engine))
    monkeypatch.setattr(parts, "open_registry", opens(world.registry))


@pytest.mark.usefixtures("twins")
async def test_every_group_hears_what_the_table_says(tmp_path: Path) -> None:
    """The handler tables of all roles, composed as they run, are the table's third column."""
    heard: dict[tuple[str, str], set[str]] = {}
    async with open_parts(Settings(range_id="r1", spool_folder=str(tmp_path))) as opened:
        for name, make in ROLES.items():
            for subscription in (await make(opened)).subscriptions():
                tags = {str(kind.__struct_config__.tag).rsplit(".", 1)[0] for kind in subscription.handlers}
                heard.setdefault((name, subscription.group), set()).update(tags)
    assert heard == {(role, group): hears for role, group, hears, _ in _rows() if group}


def test_every_role_is_in_the_table() -> None:
    """Roles that hear nothing have a row as well."""
    named = {role.strip() for row in _rows() for role in row[0].split(",")}
    assert set(ROLES) <= named


def test_what_a_role_says_its_modules_know() -> None:
    """Each type of the fourth column is a name in the modules that make up the role."""
    for role, _, _, says in _rows():
        source = "\n".join(path.read_text() for place in PLACES[role] for path in (ROOT / "services").glob(place))
        assert {tag for tag in says if not re.search(rf"\b{CLASSES[tag].__name__}\b", source)} == set(), role
