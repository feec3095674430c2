"""`serve` and other commands as real processes: how they start and how they end."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.machine.polling import poll
from tests.laboratory import ROOT, Lab, RedisServer, free_port, plain_environment, variables


class Process:
    """A command of the project's, its output in files."""

    def __init__(self, folder: Path, arguments: list[str], settings: dict[str, object]) -> None:
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self._process = subprocess.Popen(
                # A shell starts what runs in its background with SIGINT ignored, and that is inherited.
                ["env", "--default-signal=INT", sys.executable, "-m", "services", *arguments],
                cwd=ROOT,
                env={**plain_environment(), **variables(settings)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        return self.err.read_text()

    def says(self, text: str, seconds: float = 30) -> None:
        """Wait until it has said something."""
        assert poll(lambda: text in self.said or self._process.poll() is not None, seconds=seconds), self.said
        assert text in self.said, self.said

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ends(self, seconds: float = 30) -> int:
        """Its exit status."""
        return self._process.wait(seconds)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Processes:
    """Starts them, and ends what a test left running."""

    def __init__(self, folder: Path, settings: dict[str, object]) -> None:
        self.settings = settings
        self._folder = folder
        self._started: list[Process] = []

    def start(self, *arguments: str, **settings: object) -> Process:
        folder = self._folder / str(len(self._started))
        folder.mkdir()
        process = Process(folder, list(arguments), {**self.settings, **settings})
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            process.close()


@pytest.fixture
def processes(redis_server: RedisServer, key_prefix: str, tmp_path: Path) -> Iterator[Processes]:
    """Commands with their own key prefix and ports, and no engine nor registry that answers."""
    started = Processes(
        tmp_path,
        {
            "redis_url": redis_server.url,
            "key_prefix": key_prefix,
            "host_engine_url": f"unix://{tmp_path}/no.sock",
            "registry_url": "http://127.0.0.1:1",
            "api_listen": f"127.0.0.1:{free_port()}",
            "tar_listen": f"127.0.0.1:{free_port()}",
            "spool_folder": tmp_path / "spool",
            "drain_seconds": 2,
            "log_format": "json",
        },
    )
    yield started
    started.close()


def test_services_start_with_everything_away_but_redis(processes: Processes) -> None:
    """Engine and registry may come later; SIGTERM ends it with status 0."""
    process = processes.start("serve", "all")
    process.says('"event":"running"')
    process.signal(signal.SIGTERM)
    assert process.ends() == 0
    assert '"event":"stopped"' in process.said


def test_services_wait_for_redis_and_say_so_once(processes: Processes, lab: Lab, unique: str) -> None:
    """One line while it waits, one when Redis is there, then it runs; and it runs on when Redis was away."""
    redis = lab.redis(f"late-{unique}")
    redis.stop()
    process = processes.start("serve", "all", redis_url=redis.url)
    process.says("waiting for Redis at redis://127.0.0.1:")
    redis.start()
    process.says('"event":"running"')
    assert process.said.count("waiting for Redis") == 1
    redis.stop()
    redis.start()
    asked = processes.start("deploy", "r1", "web:1", "--no-wait", redis_url=redis.url)
    assert asked.ends() == 0
    listed = json.loads(_output(processes, "deployments", "ls", "--json", redis_url=redis.url))
    assert [row["range_id"] for row in listed["items"]] == ["r1"]
    process.signal(signal.SIGTERM)
    assert process.ends() == 0
    redis.stop()


def test_waiting_for_redis_can_be_ended(processes: Processes) -> None:
    """SIGTERM is obeyed before anything runs."""
    process = processes.start("serve", "all", redis_url="redis://127.0.0.1:1/0")
    process.says("waiting for Redis")
    process.signal(signal.SIGTERM)
    assert process.ends() == 0


def test_a_process_that_waits_for_redis_is_alive_and_not_ready(processes: Processes) -> None:
    """Its operations listener is there before Redis is, and says that the process is starting."""
    address = f"127.0.0.1:{free_port()}"
    process = processes.start("serve", "tracker", redis_url="redis://127.0.0.1:1/0", operations_listen=address)
    process.says("waiting for Redis")
    with urllib.request.urlopen(f"http://{address}/livez", timeout=10) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{address}/readyz", timeout=10)
    assert refused.value.code == 503
    assert json.loads(refused.value.read())["status"] == "starting"
    process.signal(signal.SIGTERM)
    assert process.ends() == 0


def test_an_operations_address_that_is_taken_stops_the_start(processes: Processes) -> None:
    """One line with the setting's name, exit status 2, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = processes.start("serve", "tracker", operations_listen=address)
        assert process.ends() == 2
    assert f"error: cannot listen at {address}: " in process.said
    assert "Traceback" not in process.said


def test_a_role_that_cannot_run_stops_the_process_with_its_name(processes: Processes) -> None:
    """A port that is taken: one line, exit status 7, no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = processes.start("serve", "api", api_listen=f"127.0.0.1:{taken.getsockname()[1]}")
        assert process.ends() == 7
    assert "error: api stopped: cannot listen at 127.0.0.1:" in process.said
    assert "Traceback" not in process.said


def test_an_api_that_would_be_open_to_a_network_stops_the_start(processes: Processes) -> None:
    """Before anything runs, with what to set."""
    process = processes.start("serve", "api", api_listen=f"0.0.0.0:{free_port()}")
    assert process.ends() == 2
    assert "set CYROID_API_AUTH to token or cyroid" in process.said
    assert "Traceback" not in process.said


def test_an_api_on_every_address_asks_for_a_token(processes: Processes, tmp_path: Path) -> None:
    """One made on the command line is known; its name is the command's actor; the old Host trick is refused."""
    tokens, port = tmp_path / "tokens", free_port()
    token = _output(processes, "tokens", "create", "eva", "--role", "operator", "--file", str(tokens)).strip()
    process = processes.start("serve", "api", api_listen=f"0.0.0.0:{port}", api_auth="token", api_tokens=tokens)
    process.says('"event":"running"')
    process.says('"event":"listening"')

    def asked(path: str, headers: dict[str, str], body: bytes | None = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST" if body else "GET", path, body, headers)
        answer = connection.getresponse()
        assert answer.getheader("Server") == "cyroid-images"
        assert answer.status < 400 or answer.getheader("Content-Type") == "application/problem+json"
        connection.close()
        return answer.status

    bearer = {"Authorization": f"Bearer {token}"}
    body = json.dumps({"range_id": "r1", "images": ["web:1"]}).encode()
    json_type = {"Content-Type": "application/json"}
    assert asked("/livez", {}) == 200
    assert asked("/api/v1/ranges", {}) == 401
    assert asked("/api/v1/ranges", bearer) == 200
    assert asked("/api/v1/ranges", {**bearer, "Host": "evil.example"}) == 421
    assert asked("/api/v1/deployments", {**bearer, "Content-Type": "text/plain"}, body) == 415
    assert asked("/api/v1/deployments", {**bearer, **json_type, "Origin": "http://evil.example"}, body) == 403
    assert asked("/api/v1/deployments", {**bearer, **json_type}, body) == 202
    (row,) = json.loads(_output(processes, "deployments", "ls", "--json"))["items"]
    assert (row["range_id"], row["actor"]) == ("r1", "eva")
    process.signal(signal.SIGTERM)
    assert process.ends() == 0


def test_a_redis_that_would_lose_events_stops_the_start(processes: Processes, lab: Lab, unique: str) -> None:
    """Each thing wrong is a line with what to do; the doctor finds the same."""
    redis = lab.redis(f"evicting-{unique}", maxmemory_policy="allkeys-lru", appendonly="no")
    process = processes.start("serve", "all", redis_url=redis.url)
    assert process.ends() == 2
    assert "error: Redis drops keys when its memory is full (maxmemory-policy allkeys-lru)" in process.said
    assert "set appendonly yes" in process.said
    doctor = processes.start("doctor", redis_url=redis.url)
    assert doctor.ends() == 1
    assert "wrong redis: Redis drops keys" in doctor.out.read_text()
    redis.stop()


def test_the_doctor_names_the_role_that_does_not_run(processes: Processes, lab: Lab, unique: str) -> None:
    """On streams on which nobody ever said a word."""
    redis = lab.redis(f"quiet-{unique}")
    process = processes.start("serve", "deployer", redis_url=redis.url)
    process.says('"event":"running"')

    def findings() -> dict[str, dict[str, str]]:
        doctor = processes.start("doctor", "--json", redis_url=redis.url)
        assert doctor.ends() == 1
        return {item["what"]: item for item in json.loads(doctor.out.read_text())["items"]}

    assert poll(lambda: findings()["deployer"]["state"] == "ok", seconds=20)
    found = findings()
    assert f"(process {process.pid}," in found["deployer"]["found"]
    assert "no process runs it" in found["tracker"]["found"]
    assert found["tracker"]["advice"] == "start it: cyroid-images serve tracker"
    process.signal(signal.SIGTERM)
    assert process.ends() == 0
    redis.stop()


def test_a_typo_stops_the_start(processes: Processes) -> None:
    """With the variable's name and the nearest right one."""
    process = processes.start("serve", "all", reds_url="redis://h")
    assert process.ends() == 2
    assert process.said == "error: CYROID_REDS_URL: there is no such setting; did you mean CYROID_REDIS_URL?\n"


def test_ctrl_c_while_waiting_for_a_deployment(processes: Processes) -> None:
    """The command ends with 130 and says how to stop the deployment itself, which goes on."""
    process = processes.start("deploy", "r1", "web:1", "--id", "d1")
    process.says("deployment d1")
    process.signal(signal.SIGINT)
    assert process.ends() == 130
    assert "it goes on without you; to stop it: cyroid-images deployments cancel d1" in process.said
    assert "Traceback" not in process.said


def test_a_reader_that_leaves_is_no_error(processes: Processes, redis_server: RedisServer) -> None:
    """`cyroid-images settings | head -1` ends quietly."""
    done = subprocess.run(
        f"{sys.executable} -m services settings | head -1",
        shell=True,
        cwd=ROOT,
        env={**plain_environment(), **variables(processes.settings)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("CYROID_REDIS_URL=")
    assert done.stderr == ""


def test_ctrl_c_ends_watching(processes: Processes) -> None:
    """What comes is shown at once, also into a pipe; Ctrl-C ends it quietly."""
    process = processes.start("events", "tail")
    assert processes.start("deploy", "r1", "web:1", "--no-wait").ends() == 0
    assert poll(lambda: "deployment.requested.v1" in process.out.read_text(), seconds=30)
    process.signal(signal.SIGINT)
    assert process.ends() == 130
    assert process.said == "interrupted\n"


def _output(processes: Processes, *arguments: str, **settings: object) -> str:
    process = processes.start(*arguments, **settings)
    assert process.ends() == 0, process.said
    return process.out.read_text()
