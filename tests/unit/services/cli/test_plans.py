"""`deployments plan` and `plans …`."""

import asyncio
from datetime import UTC, datetime

from events.bus import IndexWrite, Outcome
from events.envelope import Envelope
from events.messages import DeploymentPlanned, Failure, ImagePushFailed, Message
from events.records import ANY
from services.core.deployments.deployment import Deployment, ImageState
from services.core.deployments.index import DeploymentKeys, index_writes
from services.core.deployments.plans import Plan, PlanKeys
from tests.unit.services.cli.conftest import Shell
from tests.unit.services.twins import STREAMS

WEB = "docker.io/library/web:1"
NOW = datetime.now(UTC)


def _said(shell: Shell) -> list[Message]:
    return asyncio.run(shell.world.said(STREAMS.deployments))


def test_a_plan_is_announced(shell: Shell) -> None:
    """With normalised names and the ranges, each once; too many images are refused before a word is said."""
    result = shell.run("deployments", "plan", "web:1", "docker.io/library/web:1", "--range", "r1", "--range", "r1")
    assert result.exit_code == 0, result.output
    (message,) = _said(shell)
    assert isinstance(message, DeploymentPlanned)
    assert result.stdout.strip() == message.plan_id
    assert (message.images, message.range_ids) == ((WEB,), ("r1",))
    refused = shell.run("deployments", "plan", *(f"web:{number}" for number in range(501)))
    assert refused.exit_code == 2
    assert "at most 500" in refused.stderr
    assert len(_said(shell)) == 1
    none = shell.run("plans", "show", "p9")
    assert (none.exit_code, "no plan 'p9'" in none.stderr) == (2, True)


def test_a_plan_that_nobody_took_is_shown_as_such(shell: Shell) -> None:
    """With whom to look for; the id is the one that was given."""
    shell.run("deployments", "plan", "web:1", "--range", "r1", "--id", "p1")
    result = shell.run("plans", "show", "p1")
    assert f"{WEB}  waiting" in result.stdout
    assert "is `cyroid-images serve deployer` running?" in result.stderr
    assert "p1    announced  0 of 1           0 of 1" in shell.run("plans", "ls").stdout


def test_show_says_what_is_missing_and_what_to_do(shell: Shell) -> None:
    """A push that failed, a range that was away, a range that has it."""
    images = (ImageState(reference=WEB, state="ready", since=NOW),)
    deployment = Deployment(
        deployment_id="d1",
        range_id="r1",
        state="succeeded",
        asked=(WEB,),
        images=images,
        requested_at=NOW,
        correlation_id="c",
    )
    plan = Plan(plan_id="p1", images=(WEB,), range_ids=("r1", "r2"), announced_at=NOW, deployments={"r1": "d1"})
    keys, plan_keys = DeploymentKeys(STREAMS.prefix), PlanKeys(STREAMS.prefix)
    outcome = Outcome(
        records=(
            keys.record("d1").write(deployment, expected=ANY),
            plan_keys.record("p1").write(plan, expected=ANY),
        ),
        index=(*index_writes(keys, None, deployment), IndexWrite(plan_keys.all, "p1", NOW.timestamp())),
    )
    asyncio.run(shell.world.bus.commit(outcome))
    failed = ImagePushFailed(reference=WEB, error=Failure(code="no_space", message="the registry is full"))
    asyncio.run(shell.world.bus.publish(STREAMS.images, Envelope(message=failed, source="p", subject="s")))
    result = shell.run("plans", "show", "p1")
    assert result.exit_code == 0, result.output
    assert "r1     succeeded  1 of 1        d1" in result.stdout
    assert "r2     away       0 of 1        -" in result.stdout
    assert "the registry is full; then: cyroid-images images push" in result.stderr
    assert "1 away: once they are up, plan the same again with --id p1" in result.stderr
    assert "incomplete; ready in 1 of 2 ranges" in result.stderr
    assert "p1    incomplete  0 of 1           1 of 2" in shell.run("plans", "ls").stdout
