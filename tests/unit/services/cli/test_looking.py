"""`ranges ls`, `events tail` and `doctor`."""

import asyncio
import json

from events.bus import IndexWrite, Outcome, RecordWrite
from events.envelope import Envelope
from events.lease import Holder
from events.messages import AgentStarted, Failure, ImageBuilt, ImageFailed, LoadOffered, PresentImage
from events.records import ANY
from services.adapters.memory_archives import tar_of
from services.core.ranges.ranges import DesiredImage, DesiredImages, RangeKeys
from tests.unit.services.cli.conftest import Shell
from tests.unit.services.twins import STREAMS

ID = "sha256:" + "1" * 64


def _started(shell: Shell, range_id: str, beat: bytes | None) -> None:
    async def work() -> None:
        message = AgentStarted(
            range_id=range_id, engine_id="e", engine_version="26.1.5", store="classic", platform="linux/amd64"
        )
        bus = shell.world.bus
        await bus.publish(STREAMS.outbox(range_id), Envelope(message=message, source="agent", subject=range_id))
        if beat is not None:
            await bus.beat(STREAMS.alive(range_id), beat, 60)

    asyncio.run(work())


def test_ranges_are_listed_with_their_agents(shell: Shell) -> None:
    """A heart that beats, one that stopped, and one that says nonsense."""
    _started(shell, "r1", b'{"engine_version":"26.1.5","at":"now"}')
    _started(shell, "r2", None)
    _started(shell, "r3", b"\xff nonsense")
    _started(shell, "r4", b'{"engine_version":"' + b"x" * 1000 + b'"}')
    states = {row["range_id"]: row["agent"] for row in shell.json("ranges", "ls")["items"]}
    assert states == {"r1": "alive", "r2": "away", "r3": "unreadable", "r4": "unreadable"}
    assert "26.1.5" in shell.run("ranges", "ls").stdout


def test_a_range_that_never_spoke_is_not_listed(shell: Shell) -> None:
    """Somebody listens to a mistyped name: that makes a stream, and no range."""
    _started(shell, "r1", None)

    async def listen() -> None:
        await shell.world.bus.take(Holder("deployer", "t"), [STREAMS.outbox("rr1")], 0)

    asyncio.run(listen())
    assert [row["range_id"] for row in shell.json("ranges", "ls")["items"]] == ["r1"]


def test_a_range_can_be_forgotten_once_its_agent_is_gone(shell: Shell) -> None:
    """While it is alive that takes --force; afterwards there is nothing to forget."""
    keys = RangeKeys("test")

    async def know() -> None:
        records = (RecordWrite(keys.known("r1").name, b"{}"), RecordWrite(keys.wanted("r1").name, b"{}"))
        index = tuple(IndexWrite(key, "r1", 1.0) for key in (keys.known_index, keys.asked, keys.places))
        await shell.world.bus.commit(Outcome(records=records, index=index))

    _started(shell, "r1", b"{}")
    asyncio.run(know())
    refused = shell.run("ranges", "forget", "r1")
    assert refused.exit_code == 2
    assert "alive" in refused.stderr
    assert shell.run("ranges", "forget", "r1", "--force").exit_code == 0

    async def left() -> list[object]:
        bus = shell.world.bus
        records = await bus.load_many([keys.known("r1").name, keys.wanted("r1").name])
        return [one for one in records if one] + [
            one for key in (keys.known_index, keys.asked, keys.places) for one in await bus.members(key)
        ]

    assert asyncio.run(left()) == []
    assert shell.run("ranges", "forget", "nobody").exit_code == 2


def test_an_image_that_a_range_is_not_meant_to_have_any_more_is_forgotten(shell: Shell) -> None:
    """The others stay wanted; one that was never deployed there is told, and nothing is forgotten."""
    key = RangeKeys("test").wanted("r1")
    images = {
        name: DesiredImage(reference=name, image_id=ID, diff_ids=(), deployment_id="d")
        for name in ("docker.io/library/web:1", "docker.io/library/db:1")
    }

    async def want() -> None:
        write = key.write(DesiredImages(range_id="r1", images=images), expected=ANY)
        await shell.world.bus.commit(Outcome(records=(write,)))

    async def wanted() -> list[str]:
        stored = await key.load(shell.world.bus)
        assert stored.value is not None
        return list(stored.value.images)

    asyncio.run(want())
    refused = shell.run("ranges", "forget", "r1", "web:1", "nothing:1")
    assert refused.exit_code == 2
    assert "nothing:1" in refused.stderr
    assert asyncio.run(wanted()) == list(images)
    forgotten = shell.json("ranges", "forget", "r1", "web:1")
    assert forgotten == {"range_id": "r1", "images": ["docker.io/library/web:1"]}
    assert asyncio.run(wanted()) == ["docker.io/library/db:1"]


def test_what_a_range_says_cannot_command_the_terminal(shell: Shell) -> None:
    """Escape sequences in its beat or its messages are shown as replacement characters."""
    _started(shell, "r1", b'{"engine_version":"\\u001b]0;owned\\u0007"}')

    async def say() -> None:
        failed = ImageFailed(transfer_id="t", error=Failure(code="\x1b[2Jx", message="m"))
        await shell.world.bus.publish(
            STREAMS.outbox("r1"), Envelope(message=failed, source="a\r\nb", subject="s\x9b2J")
        )

    asyncio.run(say())
    for arguments in (("ranges", "ls"), ("events", "tail", "--no-follow")):
        shown = shell.run(*arguments).stdout
        assert not set(shown) & {"\x1b", "\x07", "\x9b", "\r"}
        assert "\N{REPLACEMENT CHARACTER}" in shown


def test_events_are_shown_in_order_without_secrets(shell: Shell) -> None:
    """Shared streams and ranges' own; a one-use token is not shown to whoever looks."""
    _started(shell, "r1", None)

    async def say() -> None:
        built = ImageBuilt(reference="web:1", image_id=ID)
        offered = LoadOffered(transfer_id="t", reference="web:1", image_id=ID, url="http://h/t", token="hunter2")
        await shell.world.bus.publish(STREAMS.images, Envelope(message=built, source="build@h", subject="web:1"))
        await shell.world.bus.publish(STREAMS.inbox("r1"), Envelope(message=offered, source="d", subject="web:1"))

    asyncio.run(say())
    result = shell.run("events", "tail", "--no-follow")
    lines = result.stdout.splitlines()
    assert ["agent.started.v1" in lines[0], "image.built.v1" in lines[1], "image.load_offered.v1" in lines[2]] == [
        True
    ] * 3
    assert "image_id=111111111111" in lines[1]
    assert "hunter2" not in result.stdout
    plain = shell.run("events", "tail", "--no-follow", "--json", "-n", "2").stdout
    entries = [json.loads(line) for line in plain.splitlines()]
    assert [entry["type"] for entry in entries] == ["image.built.v1", "image.load_offered.v1"]
    assert entries[1]["data"]["token"] == "***"
    assert entries[0]["correlationid"] == entries[0]["id"]


def test_doctor_finds_what_is_away(shell: Shell) -> None:
    """A line each, what to do, and exit status 1."""
    shell.world.engine.away = True
    shell.world.registry.away = True
    result = shell.run("doctor")
    assert result.exit_code == 1
    lines = {line.split(":")[0]: line for line in result.stdout.splitlines()}
    assert lines["ok    redis"]
    assert "→ start the engine, or correct CYROID_HOST_ENGINE_URL" in lines["wrong host engine"]
    assert "→ start the registry, or correct CYROID_REGISTRY_URL" in lines["wrong registry"]
    assert "→ start it: cyroid-images serve deployer" in lines["wrong deployer"]


def test_doctor_as_json(shell: Shell) -> None:
    """The same, for programs."""
    shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    result = shell.run("doctor", "--json")
    items = {item["what"]: item for item in json.loads(result.stdout)["items"]}
    assert items["host engine"]["state"] == "ok"
    assert items["layer store"]["state"] == "note"


def test_doctor_without_redis_blames_redis_only(shell: Shell) -> None:
    """What is seen through Redis is not called broken when Redis is."""
    shell.world.bus.calls_left = 0
    items = json.loads(shell.run("doctor", "--json").stdout)["items"]
    states = {item["what"]: item["state"] for item in items}
    assert states["redis"] == "wrong"
    assert states["deployer"] == states["registry-pusher"] == states["ranges"] == "note"


def test_the_images_of_an_agent_that_started_are_named(shell: Shell) -> None:
    """By their first name, and those without one as such."""

    async def work() -> None:
        named = PresentImage(references=("web:1", "web:2"), diff_ids=(), image_id=ID)
        message = AgentStarted(
            range_id="r1",
            engine_id="e",
            engine_version="26.1.5",
            store="classic",
            platform="linux/amd64",
            images=(named, PresentImage(references=(), diff_ids=(), image_id=ID)),
        )
        await shell.world.bus.publish(STREAMS.outbox("r1"), Envelope(message=message, source="agent@r1", subject="r1"))

    asyncio.run(work())
    (line,) = [one for one in shell.run("events", "tail", "--no-follow").stdout.splitlines() if "agent.started" in one]
    assert "images=web:1,<none>" in line


def test_a_hint_says_what_to_run_next(shell: Shell) -> None:
    """On the command line alone: over HTTP there is none."""
    result = shell.run("deployments", "show", "none")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no deployment 'none'; see: cyroid-images deployments ls" in result.stderr
