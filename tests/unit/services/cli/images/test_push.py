"""`images push` and `images prompts`."""

import asyncio
import importlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from events.envelope import Envelope
from events.lease import Bus
from events.messages import ImageBuilt, ImagePushed, PushRequested
from events.task_group import TaskGroup
from services.adapters.memory_archives import tar_of
from services.core.images.image import EngineImage
from services.errors import TransferFailed
from services.queries.images import open_prompts
from services.runtime.shutdown import Stop
from services.serving import run
from services.settings import Settings
from tests.unit.services.cli.conftest import Shell, stands_at
from tests.unit.services.twins import STREAMS

WEB = "docker.io/library/web:1"


@asynccontextmanager
async def _pushing(shell: Shell) -> AsyncIterator[None]:
    """With a registry-pusher at work."""
    settings = Settings(key_prefix=STREAMS.prefix)
    async with TaskGroup() as tasks:
        working = tasks.create_task(run(settings, ["registry-pusher"], Stop(), shell.adapters))
        yield
        working.cancel()


@pytest.fixture
def shell_with_pusher(shell: Shell) -> Shell:
    """A shell in whose world a registry-pusher works while a command runs."""

    @asynccontextmanager
    async def opened(_: Settings) -> AsyncIterator[Bus]:
        async with _pushing(shell):
            yield shell.world.bus

    return replace(shell, adapters=replace(shell.adapters, bus=opened))


def _asked(shell: Shell) -> list[PushRequested]:
    return [one for one in asyncio.run(shell.world.said()) if isinstance(one, PushRequested)]


def test_without_waiting_it_asks_for_what_the_engine_has(shell: Shell) -> None:
    """The command carries the image id; an unknown image is told at once."""
    image = shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    assert shell.run("images", "push", "web:1", "--no-wait").stdout == f"{WEB}\n"
    assert _asked(shell) == [PushRequested(reference=WEB, image_id=image.image_id, why="manual")]
    result = shell.run("images", "push", "none:1")
    assert result.exit_code == 2
    assert "the host's engine has no image none:1" in result.stderr


def test_waiting_ends_with_the_push(shell_with_pusher: Shell) -> None:
    """Exit status 0 once the registry has it; as JSON the event as it is on the wire."""
    shell = shell_with_pusher
    image = shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    result = shell.run("images", "push", "web:1")
    assert (result.exit_code, result.stdout) == (0, f"{WEB}\n")
    assert "pushed in" in result.stderr
    (item,) = shell.json("images", "push", "web:1")["items"]
    assert (item["type"], item["image_id"], item["method"]) == ("image.pushed.v1", image.image_id, "present")


def test_what_others_push_is_not_its_own(shell: Shell) -> None:
    """Only the answer to this very request ends the waiting: another one of the same image does not."""
    image = shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    digest = str(image.image_id)
    other = Envelope(message=PushRequested(reference=WEB), source="other", subject=WEB)
    pushed = ImagePushed(
        reference=WEB, repository="library/web", tag="1", manifest_digest=digest, image_id=digest, layers=()
    )
    asyncio.run(shell.world.bus.publish(STREAMS.images, other, other.causes(pushed, source="p", subject=WEB)))
    result = shell.run("images", "push", "web:1", "--timeout", "0.05", "--json")
    assert result.exit_code == 5
    assert "it goes on" in result.stderr
    (item,) = json.loads(result.stdout)["items"]
    assert (item["reference"], item["ended"]) == (WEB, False)


def test_a_push_that_fails_is_exit_status_5(shell_with_pusher: Shell) -> None:
    """With the reason; what went in beside it is still printed."""
    shell = shell_with_pusher
    shell.world.engine.add_image("db:1", [tar_of({"f": b"1"})])
    shell.world.engine.add_image("web:1", [tar_of({"f": b"2"})])
    rebuilt = shell.world.engine.inspect

    async def inspect(reference: str) -> EngineImage | None:
        """The second look at web:1 finds other content: somebody rebuilt it in between."""
        image = await rebuilt(reference)
        if reference == WEB:
            shell.world.engine.add_image("web:1", [tar_of({"f": b"3"})])
        return image

    shell.world.engine.inspect = inspect  # type: ignore[method-assign]
    result = shell.run("images", "push", "web:1", "db:1")
    assert result.exit_code == 5
    assert result.stdout == "docker.io/library/db:1\n"
    assert "(rebuilt)" in result.stderr


def test_a_registry_that_is_away_is_said_at_once(shell: Shell) -> None:
    """Not after the first seconds of silence: nobody is there to take it."""
    shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    shell.world.registry.away = True
    result = shell.run("images", "push", "web:1", "--timeout", "0.3")
    assert result.stderr.startswith("push: the registry registry:5000 does not answer: check that it runs; it goes in")


def test_a_registry_that_is_not_well_does_not_end_the_waiting(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of another kind is told too, and the push goes on."""
    shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])

    async def ping() -> None:
        raise TransferFailed("the registry said 500")

    monkeypatch.setattr(shell.world.registry, "ping", ping)
    result = shell.run("images", "push", "web:1", "--timeout", "0.3")
    assert result.exit_code == 5
    assert "push: the registry is not well: the registry said 500" in result.stderr
    assert "it goes on" in result.stderr


@pytest.mark.parametrize(("lag", "told"), [(1, "no registry-pusher has taken it yet"), (None, "under way")])
def test_a_lag_that_redis_cannot_tell_is_nobodys_fault(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, lag: int | None, told: str
) -> None:
    """Only a lag that is known says that no pusher works."""
    shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    stands_at(shell, monkeypatch, "registry-pusher", lag)
    monkeypatch.setattr(importlib.import_module("services.cli.images.push"), "LINE_SECONDS", 0.02)
    assert f"push: {told}" in shell.run("images", "push", "web:1", "--timeout", "0.3").stderr


def test_a_prompt_is_listed_until_it_is_answered(shell_with_pusher: Shell) -> None:
    """An image that came with `push: ask` waits; pushing it answers, in the words of the event that asked."""
    shell, world = shell_with_pusher, shell_with_pusher.world
    image = world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    built = Envelope(
        message=ImageBuilt(reference=WEB, image_id=str(image.image_id), push="ask", origin="./web", size_bytes=2500),
        source="build@here",
        subject=WEB,
    )

    async def ask() -> None:
        async with asyncio.timeout(10), _pushing(shell):
            await world.bus.publish(STREAMS.images, built)
            while not await open_prompts(world.bus, STREAMS):  # noqa: ASYNC110 - until the role has read it
                await asyncio.sleep(0)

    asyncio.run(ask())
    (prompt,) = shell.json("images", "prompts")["items"]
    assert (prompt["reference"], prompt["image_id"], prompt["origin"]) == (WEB, image.image_id, "./web")
    assert "2.5 kB" in shell.run("images", "prompts").stdout
    assert shell.run("images", "push", "web:1").exit_code == 0
    assert shell.json("images", "prompts")["items"] == []
    (asked,) = _asked(shell)
    assert asked.why == "prompt"

    async def correlations() -> set[str]:
        entries = world.bus.tail([STREAMS.images], after="0", follow=False)
        return {entry.envelope.correlation_id async for entry in entries if entry.envelope}

    assert asyncio.run(correlations()) == {built.correlation_id}


def test_a_dry_run_says_what_would_be_sent(shell: Shell) -> None:
    """A line for each image; nothing is asked for."""
    shell.world.engine.add_image("web:1", [tar_of({"f": b"1"}), tar_of({"g": b"2"})])
    line = shell.run("images", "push", "web:1", "--dry-run").stdout.splitlines()[-1]
    assert (WEB in line, "2 of 2" in line, "none" in line) == (True, True, True)
    (preview,) = shell.json("images", "push", "web:1", "--dry-run")["items"]
    assert (preview["layers"], preview["missing_layers"]) == (2, 2)
    assert _asked(shell) == []


def test_all_that_the_registry_lacks_is_pushed(shell: Shell) -> None:
    """In place of names; both, or neither, is an error of usage."""
    for number in (1, 2):
        shell.world.engine.add_image(f"web:{number}", [tar_of({"f": b"%d" % number})])
    assert shell.run("images", "push", "--all-missing", "--no-wait").stdout.splitlines() == [
        WEB,
        WEB.replace(":1", ":2"),
    ]
    assert [one.reference for one in _asked(shell)] == [WEB, WEB.replace(":1", ":2")]
    for words in ([], ["web:1", "--all-missing"], ["--all-missing", "--dry-run"]):
        assert shell.run("images", "push", *words).exit_code == 2
