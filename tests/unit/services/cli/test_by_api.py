"""Commands of the command line that the HTTP API carries out, and the answers to prompts."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from click.testing import CliRunner, Result

from events.messages import PushSkipped
from services.adapters.memory_archives import tar_of
from services.cli import main
from services.core.images.prompts import Prompt, asked, prompt_id
from tests.unit.services.api.site import Service, open_service
from tests.unit.services.cli.conftest import Shell
from tests.unit.services.twins import STREAMS

WEB = "docker.io/library/web:1"


async def _ask(service: Service | Shell, image_id: str = f"sha256:{'1' * 64}") -> None:
    prompt = Prompt(id=prompt_id(WEB), reference=WEB, image_id=image_id, asked_at=datetime.now(UTC))
    await service.world.bus.commit(asked(STREAMS.prefix, prompt))


def _json(result: Result) -> object:
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
        asked_for = await run("images", "push", "web:1", "web:2", "--no-wait", "--json")
        assert len(_json(asked_for)["pushes"]) == 2  # type: ignore[index]
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
