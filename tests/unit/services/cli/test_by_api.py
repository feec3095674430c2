"""Commands of the command line that the HTTP API carries out, and the answers to prompts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from events.bus import Outcome
from events.envelope import Envelope
from events.messages import (
    CollectRequested,
    DeletionPlanned,
    Failure,
    ImageDeleteRefused,
    ImageFetched,
    ImagesAdopted,
    ImagesReclaimed,
    Message,
    PushSkipped,
    RegistryCollected,
    RegistryRestored,
    RetentionPlanned,
)
from events.records import ANY
from services.adapters.memory_archives import tar_of
from services.cli import main
from services.cli.by_api import Caller, changed
from services.core.images.prompts import Prompt, asked, prompt_id
from services.core.store.retention import RetentionRule, RetentionRules, retention_key
from tests.unit.services.api.site import Service, open_service
from tests.unit.services.cli.conftest import Shell
from tests.unit.services.twins import STREAMS

WEB = "docker.io/library/web:1"
DIGEST = "sha256:" + "1" * 64


async def _ask(service: Service | Shell, image_id: str = f"sha256:{'1' * 64}") -> None:
    prompt = Prompt(id=prompt_id(WEB), reference=WEB, image_id=image_id, asked_at=datetime.now(UTC))
    await service.world.bus.commit(asked(STREAMS.prefix, prompt))


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


async def test_nouns_speak_with_an_api_elsewhere() -> None:
    """Lists in whole, commands with their errors; what is followed is followed to its end."""
    async with open_service() as service:
        url = str(service.client.make_url("/"))

        async def run(*words: str) -> Result:
            return await asyncio.to_thread(CliRunner().invoke, main, [*words, "--api", url], catch_exceptions=False)

        for number in range(3):
            service.world.engine.add_image(f"web:{number}", [tar_of({"f": b"%d" % number})])
        await service.scan()
        web = await service.world.engine.inspect(WEB)
        assert web is not None
        await _ask(service, web.image_id or "")
        await service.look()
        listed = await run("images", "ls")
        assert [line.split()[0] for line in listed.stdout.splitlines()[1:]][:1] == ["docker.io/library/web:0"]
        assert "docker.io/library/web:1" in (await run("images", "prompts")).stdout
        previews = _json(await run("images", "push", "web:1", "web:2", "--dry-run", "--json"))["items"]
        assert [one["missing_layers"] for one in previews] == [1, 1]
        asked_for = await run("images", "push", "web:1", "web:2", "--no-wait", "--json")
        assert len(_json(asked_for)["pushes"]) == 2
        late = await run("images", "skip", "web:1")
        assert (late.exit_code, "had it pushed" in late.output) == (2, True)
        deployed = await run("deploy", "range-1", "web:1", "--no-wait", "--id", "d1", "--priority", "0")
        assert (deployed.exit_code, "d1" in deployed.stdout) == (0, True)
        await service.look()
        assert "range-1" in (await run("deployments", "ls", "-n", "5")).stdout
        assert (await run("deployments", "show", "d1")).exit_code == 0
        assert (await run("deployments", "cancel", "d1", "--reason", "wrong range")).exit_code == 0
        assert (await run("deployments", "retry", "nothing")).exit_code == 2
        for words in (["plans", "ls"], ["ranges", "ls"], ["ranges", "unreferenced"], ["images", "unreferenced"]):
            assert (await run(*words)).exit_code == 0, words
        assert (await run("doctor")).exit_code == 0
        assert (await run("verify", "nobody")).exit_code == 2
        refused = await run("verify", "range-1", "--engine-url", "tcp://x:1")
        assert (refused.exit_code, "without --api" in refused.output) == (2, True)


def test_a_prompt_is_skipped(shell: Shell) -> None:
    """It is an event; the other answer comes too late."""
    asyncio.run(_ask(shell))
    assert shell.run("images", "skip", "web:1").stdout.splitlines()[-1] == WEB
    (said,) = asyncio.run(shell.world.said())
    assert isinstance(said, PushSkipped)
    late = shell.run("images", "skip", "web:1")
    assert (late.exit_code, "skipped it" in late.stderr) == (2, True)


#: Commands without `--api`, and why.
LOCAL = {
    "bundle create": "copies blobs of the registry to standard output, past the API",
    "bundle load": "copies blobs into the registry, past the API",
    "completion": "prints a script",
    "events schema": "prints what this version is made of",
    "serve": "runs roles in this process",
    "tokens create": "writes the file that the API reads its tokens from",
}


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_every_command_takes_an_api() -> None:
    """But for those that make sense on the host alone."""
    without = {name for name, one in _commands(main) if "api_url" not in {each.name for each in one.params}}
    assert without == set(LOCAL)


class Collector:
    """Answers every command that is published over the API."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: Message | None = None
        self.asked: list[Message] = []
        self._publish = service.world.bus.publish
        monkeypatch.setattr(service.world.bus, "publish", self.publish)

    async def publish(self, stream: str, *envelopes: Envelope) -> None:
        await self._publish(stream, *envelopes)
        for one in envelopes:
            self.asked.append(one.message)
            if self.answer is not None:
                await self._publish(stream, one.causes(self.answer, source="collector", subject="registry"))


async def _run(service: Service, *words: str) -> Result:
    url = str(service.client.make_url("/"))
    return await asyncio.to_thread(CliRunner().invoke, main, [*words, "--api", url], catch_exceptions=False)


async def test_the_store_is_looked_after_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command with its answer as exit status, also where no role has answered yet."""
    async with open_service() as service:
        collector = Collector(service, monkeypatch)
        late = await _run(service, "registry", "collect", "--timeout", "0.2")
        assert (late.exit_code, "not ended after 0.2 seconds" in late.stderr) == (5, True)
        collector.answer = RegistryCollected(quarantined=3, damaged=("web:1",))
        collected = await _run(service, "registry", "collect", "--now", "--json")
        assert (collected.exit_code, json.loads(collected.stdout)["quarantined"]) == (5, 3)
        assert collector.asked[-1] == CollectRequested(keep_seconds=0.0)
        collector.answer = RegistryRestored(restored=(DIGEST,))
        assert _json(await _run(service, "registry", "quarantine", "restore", DIGEST, "--json"))
        collector.answer = RetentionPlanned(dry_run=True, kept=2)
        assert _json(await _run(service, "registry", "retention", "run", "--dry-run", "--json"))["kept"] == 2
        collector.answer = DeletionPlanned(reference=WEB, manifest_digest=DIGEST, tags=("1",), needed_by=("plan p-1",))
        assert (await _run(service, "images", "rm", "web:1", "--dry-run")).exit_code == 5
        assert (await _run(service, "images", "rm", "web:1", "--dry-run", "--force")).exit_code == 0
        collector.answer = ImageDeleteRefused(reference=WEB, error=Failure(code="in_use", message="it is needed"))
        refused = await _run(service, "images", "rm", "web:1", "web:2", "--json")
        assert (refused.exit_code, refused.stderr.count("it is needed")) == (2, 2)
        assert (await _run(service, "registry", "figures", "--layers")).exit_code == 2
        assert _json(await _run(service, "registry", "figures", "--growth", "--json")) == {"samples": []}
        assert (await _run(service, "registry", "quarantine", "ls")).exit_code == 2


async def test_the_hosts_copies_are_looked_after_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the registry-pusher answers is printed; several images are fetched one by one."""
    async with open_service() as service:
        pusher = Collector(service, monkeypatch)
        pusher.answer = ImagesAdopted(dry_run=True, new=4)
        assert _json(await _run(service, "images", "adopt", "*", "--dry-run", "--json"))["new"] == 4
        pusher.answer = ImagesReclaimed(freed_bytes=7)
        assert _json(await _run(service, "images", "reclaim", "*", "--json"))["freed_bytes"] == 7
        pusher.answer = ImageFetched(reference=WEB, present=True)
        fetched = _json(await _run(service, "images", "fetch", "web:1", "web:2", "--json"))
        assert [one["present"] for one in fetched["items"]] == [True, True]


async def test_rules_are_changed_from_elsewhere() -> None:
    """Read, changed and written as a whole; a rule that is not allowed is an error."""
    async with open_service() as service:

        async def said(*words: str) -> Any:
            return _json(await _run(service, "registry", *words, "--json"))

        await said("retention", "add", "*/team/*", "--keep-last", "3")
        await said("retention", "add", "*", "--keep-days", "9")
        await said("retention", "rm", "*/team/*")
        assert [one["pattern"] for one in (await said("retention", "show"))["rules"]] == ["*"]
        assert "default  all other images" in (await _run(service, "registry", "auto-push")).stdout
        assert (await said("auto-push", "off", "--pattern", "docker.io/team/*"))["rules"][0]["push"] is False
        assert (await said("reclaim-rules", "docker.io/team/*", "--after-days", "7"))["rules"]
        assert (await said("reclaim-rules"))["rules"][0]["after_days"] == 7
        refused = await _run(service, "registry", "retention", "add", "")
        assert (refused.exit_code, "Traceback" in refused.output) == (2, False)
        assert (await _run(service, "registry", "reclaim-rules", "x")).exit_code == 2


async def test_what_is_gone_is_forgotten_from_elsewhere() -> None:
    """Hosts, ranges, their images and claims; what is not there is an error."""
    async with open_service() as service:
        claimed = await _run(service, "ranges", "claim", "range-1", "--host", "a", "--json")
        assert _json(claimed)["host"] == "a"
        other = await _run(service, "ranges", "claim", "range-1", "--host", "b")
        assert (other.exit_code, "on host a" in other.output) == (2, True)
        released = await _run(service, "ranges", "release", "range-1", "--json")
        assert _json(released) == {"range_id": "range-1"}
        for words in (
            ["ranges", "release", "range-1"],
            ["ranges", "forget", "range-1"],
            ["ranges", "forget", "range-1", "web:1"],
            ["hosts", "forget", "host-9"],
            ["deployments", "priority", "d9", "3"],
        ):
            assert (await _run(service, *words)).exit_code == 2, words
        assert _json(await _run(service, "hosts", "ls", "--json"))["items"] == []
        assert _json(await _run(service, "settings", "--json"))["items"] == []
        planned = await _run(service, "deployments", "plan", "web:1", "--range", "range-1", "--id", "p1", "--json")
        assert _json(planned) == {"plan_id": "p1"}


async def test_a_rule_that_somebody_else_adds_meanwhile_is_kept() -> None:
    """The change is made again, to what is there by then."""
    async with open_service() as service:
        call, tries = Caller(str(service.client.make_url("/"))), list[int]()

        def change(rules: RetentionRules) -> RetentionRules:
            tries.append(len(rules.rules))
            if len(tries) == 1:
                write = retention_key(STREAMS.prefix).write(
                    rules.with_rule(RetentionRule(pattern="theirs")), expected=ANY
                )
                asyncio.run_coroutine_threadsafe(service.world.bus.commit(Outcome(records=(write,))), loop).result(30)
            return rules.with_rule(RetentionRule(pattern="ours"))

        loop = asyncio.get_running_loop()
        request = changed(RetentionRules, change, "registry", "retention", shown=lambda found, as_json: None)

        async def steps() -> Any:
            assert request.steps is not None
            return await request.steps(call)

        found = await asyncio.to_thread(lambda: asyncio.run(steps()))
        assert ([one.pattern for one in found.rules], tries) == (["theirs", "ours"], [0, 1])
