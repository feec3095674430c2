"""What Compose looks at to know whether a service is well."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deploy.lab import Lab, RedisServer
from deploy.stack.health import Unwell, check_worker, main
from events.redis_bus import RedisBus


async def test_a_service_that_talks_to_redis_is_well(redis_server: RedisServer, tmp_path: Path) -> None:
    """Connections of the bus from the same address count; without any the service is not well."""
    file = tmp_path / "redis_url"
    file.write_text(f"{redis_server.url}\n")
    environment = {"CYROID_REDIS_URL_FILE": str(file)}
    async with RedisBus.open(redis_server.url) as bus:
        await bus.beats(["nothing"])
        check_worker(environment)


def test_a_service_without_a_connection_is_unwell(lab: Lab) -> None:
    """A Redis to which nobody but the check is connected: the service hangs, or is not connected."""
    alone = lab.redis("alone")
    with pytest.raises(Unwell, match="no connection"):
        check_worker({"CYROID_REDIS_URL": alone.url})


def test_the_exit_status_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    """0 where something listens, 1 with a line where nothing does, 1 for a word that is none of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert main(["port", port]) == 0
    assert main(["port", port]) == 1
    assert main(["url", f"http://127.0.0.1:{port}/livez"]) == 1
    assert main(["sideways"]) == 1
    assert capsys.readouterr().err.count("\n") == 3
