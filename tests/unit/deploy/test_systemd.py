"""The units for hosts without Compose start roles that there are, with settings that there are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from deploy.machine.commands import need
from services.bootstrap import ROLES
from services.settings import Settings
from tests.unit.test_compose import SERVICES

FOLDER = Path(__file__).parents[3] / "deploy/systemd"
UNIT = (FOLDER / "cyroid-images@.service").read_text()


def _values(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def test_the_unit_serves_one_role_with_our_settings() -> None:
    """What it sets is a setting, and it waits longer than work under way is drained."""
    assert _values(UNIT, "ExecStart") == ["/opt/cyroid/bin/cyroid-images serve %i"]
    names = re.findall(r"CYROID_[A-Z_]+(?==)", " ".join(_values(UNIT, "Environment")))
    assert names
    assert {name.removeprefix("CYROID_").lower() for name in names} <= set(Settings.__struct_fields__)
    assert float(_values(UNIT, "TimeoutStopSec")[0]) > Settings().drain_seconds


def test_a_role_with_more_rights_has_those_of_the_stack() -> None:
    """Each drop-in is of a role, and gives the powers that the role has in docker-compose.yml, no more."""
    assert _values(UNIT, "CapabilityBoundingSet") == [""]
    folders = [path for path in FOLDER.iterdir() if path.is_dir()]
    assert len(folders) == 2
    for folder in folders:
        role = folder.name.removeprefix("cyroid-images@").removesuffix(".service.d")
        assert role in ROLES
        (given,) = _values((folder / "rights.conf").read_text(), "CapabilityBoundingSet")
        assert set(given.split()) == {f"CAP_{power}" for power in SERVICES[role]["cap_add"]}


def test_systemd_finds_the_units_right(tmp_path: Path) -> None:
    """`systemd-analyze verify` of an instance with each drop-in, and of one without: not one line about them."""
    units = tmp_path / "units"
    shutil.copytree(FOLDER, units)
    (units / "cyroid-images@.service").write_text(
        UNIT.replace(_values(UNIT, "ExecStart")[0], "/bin/true")  # the program is not installed here
    )
    names = [f"cyroid-images@{role}.service" for role in ("tracker", "registry-pusher", "layer-mounter")]
    done = subprocess.run(
        [need("systemd-analyze", "systemd"), "verify", *names],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if str(units) in line or "cyroid-images" in line] == []


def test_images_say_what_they_are() -> None:
    """Title, description, base and the version that pyproject.toml has."""
    root = FOLDER.parents[1]
    (version,) = re.findall(r'^version = "([^"]+)"$', (root / "pyproject.toml").read_text(), re.MULTILINE)
    for name in ("deploy/Dockerfile", "dind/Dockerfile"):
        text = (root / name).read_text()
        assert f'org.opencontainers.image.version="{version}"' in text, name
        for label in ("title", "description", "base.name"):
            assert text.count(f"org.opencontainers.image.{label}=") == 1, (name, label)
