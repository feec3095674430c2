"""`events show`, `groups`, `dead` and `schema`."""

import asyncio
import json

import pytest

from events.bus import NOTHING
from events.envelope import Envelope
from events.lease import DeadLetterReason, Holder
from events.messages import DeploymentRetryRequested, LoadOffered, PushRequested
from tests.unit.services.cli.conftest import Shell
from tests.unit.services.twins import STREAMS


@pytest.fixture
def buried(shell: Shell) -> str:
    """The id of a dead letter."""

    async def work() -> str:
        bus = shell.world.bus
        envelope = Envelope(message=PushRequested(reference="web:1"), source="api", subject="web:1")
        await bus.publish(STREAMS.images, envelope)
        (lease,) = (await bus.take(Holder("pusher", "w"), [STREAMS.images], 1)).leases
        await bus.dead_letter(
            lease, DeadLetterReason(STREAMS.dead, "not_found", "no such image", "2026-01-01T00:00:00Z"), NOTHING
        )
        return lease.entry_id

    asyncio.run(work())
    (letter,) = shell.json("events", "dead", "list")["items"]
    return str(letter["letter"])

    return NOTHING


def test_dead_letters_are_listed_and_shown(shell: Shell, buried: str) -> None:
    """Reason, origin and every field."""
    assert "no such image" in shell.run("events", "dead", "list").stdout
    shown = shell.json("events", "dead", "show", buried)
    assert (shown["reason"], shown["group"], shown["stream"]) == ("not_found", "pusher", STREAMS.images)
    assert json.loads(shown["fields"]["data"]) == {"reference": "web:1"}
    assert "data: " in shell.run("events", "dead", "show", buried).stdout


def test_tail_tells_a_dead_letter_as_what_it_is(shell: Shell, buried: str) -> None:
    """Who gave up what and why, beside the messages; not as an entry that cannot be read."""
    (line,) = [one for one in shell.run("events", "tail", "--no-follow").stdout.splitlines() if "dead letter" in one]
    assert f"dead letter {buried}: pusher gave up" in line
    assert line.endswith("not_found: no such image")
    found = shell.run("events", "tail", "--no-follow", "--json").stdout.splitlines()
    (letter,) = [one for one in map(json.loads, found) if "letter" in one]
    assert (letter["reason"], letter["of"]["stream"], letter.get("error")) == ("not_found", STREAMS.images, None)


def test_redrive_says_what_it_would_do_before_it_does_it(shell: Shell, buried: str) -> None:
    """Nothing happens without --yes; with it, the group gets the entry again."""
    assert "add --yes" in shell.run("events", "dead", "redrive", buried).stdout
    assert len(shell.json("events", "dead", "list")["items"]) == 1
    assert shell.json("events", "dead", "redrive", "--all", "--yes")["items"][0]["done"] is True
    assert shell.json("events", "dead", "list")["items"] == []
    taken = asyncio.run(shell.world.bus.take(Holder("pusher", "w"), [STREAMS.images], 9))
    assert len(taken.leases) == 1


def test_drop_removes_for_good(shell: Shell, buried: str) -> None:
    """Dry first, too."""
    assert shell.json("events", "dead", "drop", buried)["dry_run"] is True
    assert shell.json("events", "dead", "drop", buried, "--yes")["items"][0]["done"] is True
    assert shell.json("events", "dead", "list")["items"] == []


def test_a_letter_that_is_not_there_is_named(shell: Shell) -> None:
    """Exit status 2, with what to do; neither ids nor --all is a usage error."""
    result = shell.run("events", "dead", "redrive", "1-1", "--yes")
    assert (result.exit_code, "no dead letter 1-1" in result.stderr) == (2, True)
    assert shell.run("events", "dead", "drop").exit_code == 2


def test_a_token_in_a_dead_letter_is_not_shown(shell: Shell) -> None:
    """Its bytes are kept, but not printed."""

    async def work() -> None:
        bus, stream = shell.world.bus, STREAMS.inbox("r1")
        message = LoadOffered(
            transfer_id="t", reference="a", image_id="sha256:" + "1" * 64, url="http://h/t", token="hunter2"
        )
        await bus.publish(stream, Envelope(message=message, source="d", subject="a"))
        (lease,) = (await bus.take(Holder("agent", "w"), [stream], 1)).leases
        await bus.dead_letter(lease, DeadLetterReason(STREAMS.range_dead("r1"), "permanent", "x", "t"), NOTHING)

    asyncio.run(work())
    (letter,) = shell.json("events", "dead", "list")["items"]
    assert "hunter2" not in json.dumps(letter)
    assert "not shown" in letter["fields"]["data"]


def test_show_follows_a_request_through_everything_it_caused(shell: Shell) -> None:
    """By any of the ids, in order."""
    first = Envelope(message=PushRequested(reference="web:1"), source="api", subject="web:1")
    second = first.causes(DeploymentRetryRequested(deployment_id="web-2"), source="x", subject="web:2")
    other = Envelope(message=PushRequested(reference="web:3"), source="api", subject="web:3")
    asyncio.run(shell.world.bus.publish(STREAMS.images, first, other))
    asyncio.run(shell.world.bus.publish(STREAMS.deployments, second))
    items = shell.json("events", "show", second.id)["items"]
    assert [item["subject"] for item in items] == ["web:1", "web:2"]
    assert "→" in shell.run("events", "show", second.id).stdout
    assert shell.run("events", "show", "nothing").exit_code == 2


def test_groups_say_who_works_on_what(shell: Shell) -> None:
    """Lag, pending, owner."""
    envelope = Envelope(message=PushRequested(reference="web:1"), source="api", subject="web:1")
    asyncio.run(shell.world.bus.publish(STREAMS.images, envelope))
    asyncio.run(shell.world.bus.take(Holder("pusher", "worker-7"), [STREAMS.images], 1))
    (status,) = shell.json("events", "groups")["items"]
    assert (status["group"], status["pending"], status["lag"]) == ("pusher", 1, 0)
    assert "worker-7" in shell.run("events", "groups").stdout


def test_the_schema_names_every_message(shell: Shell) -> None:
    """As one document, and one by one."""
    document = json.loads(shell.run("events", "schema").stdout)
    assert document["asyncapi"] == "3.0.0"
    one = json.loads(shell.run("events", "schema", "--type", "image.built.v1").stdout)
    assert one["required"] == ["reference", "image_id"]
    assert shell.run("events", "schema", "--type", "nothing.v1").exit_code == 2
