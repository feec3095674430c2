"""`deploy` and `deployments …`."""

import asyncio
import importlib
import json
from datetime import UTC, datetime

import pytest

from events.bus import Outcome, Post
from events.envelope import Envelope
from events.messages import (
    DeploymentCancelRequested,
    DeploymentFailed,
    DeploymentRequested,
    DeploymentRetryRequested,
    DeploymentSucceeded,
    Failure,
    ImageOutcome,
    Message,
    Provenance,
    TransferProgress,
)
from events.records import ANY
from services.core.deployments.deployment import Deployment, ImageState
from services.core.deployments.index import DeploymentKeys, index_writes
from tests.unit.services.cli.conftest import Shell, stands_at
from tests.unit.services.twins import STREAMS

WEB = "docker.io/library/web:1"
NOW = datetime.now(UTC)


def _say(shell: Shell, message: Message, stream: str = STREAMS.deployments) -> None:
    asyncio.run(shell.world.bus.publish(stream, Envelope(message=message, source="deployer@t", subject="s")))


def _said(shell: Shell) -> list[Message]:
    return asyncio.run(shell.world.said(STREAMS.deployments))


def _deployment(*images: ImageState) -> Deployment:
    return Deployment(
        deployment_id="d1",
        range_id="r1",
        state="running",
        asked=tuple(image.reference for image in images),
        images=images,
        requested_at=NOW,
        correlation_id="c",
    )


def _record(shell: Shell, deployment: Deployment) -> None:
    """As the deployer stores it."""
    keys = DeploymentKeys(STREAMS.prefix)
    record = keys.record(deployment.deployment_id).write(deployment, expected=ANY)
    outcome = Outcome(records=(record,), index=index_writes(keys, None, deployment))
    asyncio.run(shell.world.bus.commit(outcome))


def test_without_waiting_the_id_is_printed(shell: Shell) -> None:
    """The command carries normalised names, once each, and the options."""
    result = shell.run("deploy", "r1", "web:1", "docker.io/library/web:1", "db", "--no-wait", "--priority", "9")
    assert result.exit_code == 0, result.output
    (message,) = _said(shell)
    assert isinstance(message, DeploymentRequested)
    assert result.stdout.strip() == message.deployment_id
    assert (message.range_id, message.images, message.priority) == ("r1", (WEB, "docker.io/library/db:latest"), 9)


@pytest.mark.parametrize(
    ("ended", "status", "told"),
    [
        (
            DeploymentSucceeded(
                deployment_id="d1",
                range_id="r1",
                images=(ImageOutcome(reference=WEB, how="pulled", sent_bytes=2500, layers_total=3, layers_reused=2),),
            ),
            0,
            "succeeded in",
        ),
        (
            DeploymentFailed(
                deployment_id="d1",
                range_id="r1",
                images=(ImageOutcome(reference=WEB, error=Failure(code="no_space", message="the disk is full")),),
            ),
            5,
            "the disk is full (no_space)",
        ),
        (
            DeploymentFailed(
                deployment_id="d1", range_id="r1", error=Failure(code="no_agent", message="nobody is there")
            ),
            5,
            "nobody is there (no_agent)",
        ),
    ],
)
def test_the_exit_status_is_the_outcome(shell: Shell, ended: Message, status: int, told: str) -> None:
    """Other deployments' outcomes are passed over; per image the table says how it got there."""
    _say(shell, DeploymentFailed(deployment_id="other", range_id="r1"))
    _say(shell, TransferProgress(transfer_id="t", reference=WEB, kind="pull", phase="downloading", range_id="r1"))
    _say(shell, ended)
    result = shell.run("deploy", "r1", "web:1", "--id", "d1")
    assert result.exit_code == status, result.output
    assert told in result.stderr
    if status == 0:
        assert [line.split() for line in result.stdout.splitlines()][1] == [
            WEB,
            "pulled",
            "2.5",
            "kB",
            "2",
            "of",
            "3",
            "0.0",
        ]


def test_json_gives_the_outcome(shell: Shell) -> None:
    """The event as it is on the wire."""
    _say(shell, DeploymentSucceeded(deployment_id="d1", range_id="r1"))
    result = shell.run("deploy", "r1", "web:1", "--id", "d1", "--json")
    assert json.loads(result.stdout)["type"] == "deployment.succeeded.v1"


def test_a_timeout_ends_the_waiting_only(shell: Shell) -> None:
    """Exit status 5, and how to stop the deployment itself."""
    result = shell.run("deploy", "r1", "web:1", "--id", "d1", "--timeout", "0.05")
    assert result.exit_code == 5
    assert "it goes on: cyroid-images deployments cancel d1" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bad/range", "web:1"), "range_id 'bad/range' is not allowed"),
        (("r1", "UPPER"), "must be lower case"),
        (("r1",), "Missing argument 'IMAGE…'"),
        (("r1", "web:1", "--id", "a b"), "deployment_id 'a b' is not allowed"),
        (("r1", "web:1", "--priority", "10"), "priority 10 is not allowed: it is a whole number from 0 to 9"),
        (("r1", "web:1", "--id", "a" * 113), "at most 112 are possible"),
        (("r1", *(f"web:{number}" for number in range(501))), "at most 500 are possible"),
        (("r1", "web:1", "--engine-url", "unix:///var/run/docker.sock"), "reached as tcp://HOST:PORT"),
        (("r1", "web:1", "--engine-url", "range:2375"), "reached as tcp://HOST:PORT"),
        (("r1", "web:1", "--platform", "amd64"), "say OS/ARCH or OS/ARCH/VARIANT"),
    ],
)
def test_what_cannot_be_asked_for(shell: Shell, arguments: tuple[str, ...], message: str) -> None:
    """One line, exit status 2, nothing published."""
    result = shell.run("deploy", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert _said(shell) == []


def test_an_id_that_is_taken_is_told_at_once(shell: Shell) -> None:
    """The deployer would not do it; the same request again is the same deployment."""
    _record(shell, _deployment(ImageState(reference=WEB, state="queued", since=NOW)))
    result = shell.run("deploy", "r1", "db:1", "--id", "d1")
    assert result.exit_code == 2
    assert "deployment d1 exists and asks for something else" in result.stderr
    assert _said(shell) == []
    assert shell.run("deploy", "r1", "web:1", "--id", "d1", "--no-wait").exit_code == 0


def test_what_the_deployer_remarks_is_told_at_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as a line on stderr, so that nobody waits without knowing for what."""
    notes = ["range r1 has no live agent: waiting 60 s for it", "goes by tar: the registry is away"]
    commit = shell.world.bus.commit

    async def deployer(outcome: Outcome) -> None:
        """Remarks two things as soon as it is asked."""
        await commit(outcome)
        for note in notes:
            remark = TransferProgress(
                transfer_id="d1", reference="", kind="pull", phase="waiting", range_id="r1", note=note
            )
            said = Envelope(message=remark, source="deployer@t", subject="r1")
            await commit(Outcome(posts=(Post(STREAMS.progress, said),)))

    monkeypatch.setattr(shell.world.bus, "commit", deployer)
    result = shell.run("deploy", "r1", "web:1", "--id", "d1", "--timeout", "0.3")
    assert result.stderr.splitlines()[:3] == ["deployment d1", *notes]


@pytest.mark.parametrize(
    ("lag", "told"), [(1, "no deployer has taken it yet"), (None, "range r1 has no agent that answers")]
)
def test_a_lag_that_redis_cannot_tell_is_nobodys_fault(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, lag: int | None, told: str
) -> None:
    """Only a lag that is known says that no deployer works."""
    stands_at(shell, monkeypatch, "deployer", lag)
    monkeypatch.setattr(importlib.import_module("services.cli.deployments"), "LINE_SECONDS", 0.02)
    result = shell.run("deploy", "r1", "web:1", "--timeout", "0.3")
    assert told in result.stderr


def test_cancel_and_retry_are_published(shell: Shell) -> None:
    """As commands to the deployer; one that is not known is told at once."""
    _say(shell, DeploymentRequested(deployment_id="d1", range_id="r1", images=(WEB,)))
    assert shell.run("deployments", "cancel", "d1", "--reason", "too slow").exit_code == 0
    assert shell.json("deployments", "retry", "d1") == {"deployment_id": "d1"}
    assert _said(shell)[1:] == [
        DeploymentCancelRequested(deployment_id="d1", reason="too slow"),
        DeploymentRetryRequested(deployment_id="d1"),
    ]
    result = shell.run("deployments", "cancel", "d2")
    assert result.exit_code == 2
    assert "there is no deployment 'd2'" in result.stderr


def test_ls_shows_the_latest_first(shell: Shell) -> None:
    """What no deployer has taken yet is only asked for."""
    for name in ("d1", "d2", "d3"):
        _say(shell, DeploymentRequested(deployment_id=name, range_id="r1", images=(WEB,)))
    rows = shell.json("deployments", "ls")["items"]
    assert [(row["deployment_id"], row["state"]) for row in rows] == [
        ("d3", "requested"),
        ("d2", "requested"),
        ("d1", "requested"),
    ]
    assert len(shell.json("deployments", "ls", "-n", "1")["items"]) == 1
    assert f"{WEB}=requested" in shell.run("deployments", "ls").stdout


def test_show_has_a_line_per_image(shell: Shell) -> None:
    """As the deployer's record has them: state, place in the queue, and why not."""
    failure = Failure(code="no_space", message="the disk is full")
    deployment = _deployment(
        ImageState(reference=WEB, state="queued", since=NOW, size_bytes=5),
        ImageState(reference="docker.io/library/db:1", state="failed", since=NOW, error=failure),
    )
    _record(shell, deployment)
    shown = shell.run("deployments", "show", "d1")
    assert "queued (number 1 in the queue)" in shown.stdout
    assert "the disk is full" in shown.stdout
    assert shown.stderr.startswith("running (number 1 in the queue) after")
    assert "running (number 1 in the queue)" in shell.run("deployments", "ls").stdout
    assert shell.json("deployments", "show", "d1")["images"][1]["error"]["code"] == "no_space"


def test_show_tells_where_each_image_came_from(shell: Shell) -> None:
    """Its manifest, who had it pushed, and whether it is signed, in the table and in JSON."""
    digest = "sha256:" + "7" * 64
    came = Provenance(manifest_digest=digest, actor="ana", source="cli@h", signed=True)
    deployment = _deployment(
        ImageState(reference=WEB, state="queued", since=NOW, provenance=came),
        ImageState(reference="docker.io/library/db:1", state="resolving", since=NOW),
    )
    _record(shell, deployment)
    told, row = shell.json("deployments", "show", "d1")["images"], shell.run("deployments", "show", "d1").stdout
    assert told[0]["provenance"] == {"manifest_digest": digest, "actor": "ana", "source": "cli@h", "signed": True}
    assert told[1]["provenance"] is None
    assert f"{digest[:19]} signed" in row
    assert "ana (cli@h)" in row


def test_who_runs_the_command_is_its_actor(shell: Shell) -> None:
    """For those who look later."""
    result = shell.run("deploy", "r1", "web:1", "--no-wait", LOGNAME="eva")
    assert result.exit_code == 0, result.output
    (row,) = shell.json("deployments", "ls")["items"]
    assert (row["state"], row["actor"]) == ("requested", "eva")
