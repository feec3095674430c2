"""`deployments priority`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Literal

from events.bus import Outcome
from events.messages import DeploymentRequested
from events.records import ANY
from services.core.deployments.deployment import Deployment
from services.core.deployments.index import DeploymentKeys
from tests.unit.services.cli.conftest import Shell
from tests.unit.services.twins import STREAMS


def test_one_that_waits_is_asked_for_again_with_another_priority(shell: Shell) -> None:
    """Its request as it was; one that is not there, or has ended, is an error."""
    keys = DeploymentKeys(STREAMS.prefix)
    now = datetime.now(UTC)
    states: dict[str, Literal["running", "succeeded"]] = {"d1": "running", "d2": "succeeded"}
    for ident, state in states.items():
        deployment = Deployment(
            deployment_id=ident,
            range_id="range-1",
            state=state,
            asked=("docker.io/library/web:1",),
            images=(),
            requested_at=now,
            correlation_id="c",
        )
        asyncio.run(shell.world.bus.commit(Outcome(records=(keys.record(ident).write(deployment, expected=ANY),))))
    assert shell.json("deployments", "priority", "d1", "9") == {"deployment_id": "d1"}
    (said,) = asyncio.run(shell.world.said(STREAMS.deployments))
    assert isinstance(said, DeploymentRequested)
    assert (said.deployment_id, said.priority) == ("d1", 9)
    assert shell.run("deployments", "priority", "d2", "9").exit_code == 2
    assert shell.run("deployments", "priority", "none", "9").exit_code == 2
    assert shell.run("deployments", "priority", "d1", "10").exit_code == 2
