"""Processes are killed in the middle of deployments; every deployment ends once, with the right content."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.killall.case import killed, report
from bench.killall.schedule import Kill
from bench.killall.supervisor import supervised
from tests.laboratory import Lab

pytestmark = pytest.mark.real

CHOSEN = (
    Kill("registry-pusher", "pushing", by_tar=False),
    Kill("deployer", "pulled", by_tar=False),
    Kill("range-engine", "extracting", by_tar=False),
    Kill("redis", "pulling", by_tar=False),
    Kill("tar-server", "loading", by_tar=True),
    Kill("agent", "unpacking", by_tar=True),
    Kill("agent-pool", "pulling", by_tar=False),
    Kill("api", "posted", by_tar=False),
)


def test_whoever_is_killed_the_deployment_ends_once_and_right(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One kill for each part that holds a transfer: all deployments succeed, engines agree, nothing stays behind."""
    folder: Path = tmp_path_factory.mktemp("kills")
    with Lab(folder) as lab, supervised(lab, ranges=1, layer_bytes=24_000_000, appendfsync="always") as here:
        found = report(here, *killed(here, CHOSEN, len(CHOSEN), seed=7), seconds=0)
    assert found["details"] == []
    assert found["ok"] is True
    assert found["died_unasked"] == {}
    assert found["kills"] + found["came_too_late"] == len(CHOSEN)
    assert found["kills"] >= len(CHOSEN) - 2
