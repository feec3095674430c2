"""The restart of an engine for mounted layers: asked of the init when no transfer uses the engine, once for all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from events.messages import Layer
from events.task_group import TaskGroup
from services.adapters import engine_restart
from services.adapters.engine_restart import EngineRestart, RestartMode
from services.adapters.memory_engine import MemoryEngine
from services.core.mounts.layer_mounts import layer_mounts
from services.errors import LayersNotMounted

ONE, TWO = (Layer(digest=f"sha256:{c * 64}", diff_id=f"sha256:{c * 64}", size_bytes=512) for c in "ab")
PLACED: dict[str, object] = {"placed": True}
BUSY: dict[str, object] = {"placed": False, "busy": True, "why": "2 clients are connected"}


class Init:
    """Answers as told, the last answer for ever; notes what it was asked."""

    def __init__(self, control: Path, *answers: object) -> None:
        self.control = control
        self.asked: list[dict[str, object]] = []
        self._answers = list(answers)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Init]:
        server = await asyncio.start_unix_server(self._serve, str(self.control))
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(json.loads(await reader.readline()))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        writer.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")
        writer.close()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long here."""
    monkeypatch.setattr(engine_restart, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(engine_restart, "_ASK_AGAIN_SECONDS", 0.01)


def restart_by(init: Init, mode: RestartMode = "idle") -> EngineRestart:
    return EngineRestart(MemoryEngine(), control=init.control, mode=mode)


async def place(restart: EngineRestart, *layers: Layer) -> None:
    async with restart.using():
        await restart.place(layer_mounts(layers))


async def test_one_restart_serves_all_that_wait_for_it(tmp_path: Path) -> None:
    """The init is asked once, for the layers of both; parents come before what stands on them."""
    async with Init(tmp_path / "control", PLACED).running() as init:
        restart = restart_by(init)
        async with TaskGroup() as tasks, restart.using():  # a transfer that ends after both have come
            tasks.create_task(place(restart, ONE))
            tasks.create_task(place(restart, ONE, TWO))
            await asyncio.sleep(0.05)
            assert not init.asked
    (request,) = init.asked
    first, second = layer_mounts([ONE, TWO])
    assert request["layers"] == [
        {"name": "a" * 64, "diff_id": ONE.diff_id, "chain_id": first.chain_id},
        {"name": "b" * 64, "diff_id": TWO.diff_id, "chain_id": second.chain_id, "parent": first.chain_id},
    ]


async def test_an_engine_that_others_use_is_asked_for_again(tmp_path: Path) -> None:
    """The init says that clients are connected; a moment later none is."""
    async with Init(tmp_path / "control", BUSY, BUSY, PLACED).running() as init:
        await place(restart_by(init), ONE)
    assert len(init.asked) == 3


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (BUSY, "2 clients"),
        ({"placed": False, "busy": False, "why": "not mounted"}, "not mounted"),
        (b"nonsense\n", "does not answer"),
        (b"", "does not answer"),
    ],
    ids=["busy", "refused", "nonsense", "gone"],
)
async def test_the_reason_is_given_where_it_is_not_restarted(tmp_path: Path, answer: object, why: str) -> None:
    """And the next one may try again."""
    async with Init(tmp_path / "control", answer, answer).running() as init:
        restart = restart_by(init)
        for _ in range(2):
            with pytest.raises(LayersNotMounted, match=why):
                await place(restart, ONE)


async def test_a_transfer_that_goes_on_is_not_cut_off(tmp_path: Path) -> None:
    """The engine is not restarted under another transfer; the layers are pulled then."""
    async with Init(tmp_path / "control", PLACED).running() as init:
        restart = restart_by(init)
        async with restart.using():
            with pytest.raises(LayersNotMounted, match="1 other transfers"):
                await place(restart, ONE)
        assert not init.asked
        await place(restart, ONE)


async def test_there_is_no_restart_without_an_init_or_against_the_setting(tmp_path: Path) -> None:
    """`never`, or no socket."""
    init = Init(tmp_path / "control", PLACED)
    assert not restart_by(init).available()
    async with init.running():
        assert restart_by(init).available()
        assert not restart_by(init, "never").available()
