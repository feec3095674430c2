"""Stage of the attacks: the running stack with the attacker's shell in a range and the operator's command line.

The attacker has root in the container of one range, its files and its secret. What it runs there begins with
`in_range.py`, which speaks the gateway's protocol byte by byte, without any of the client's own care.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.machine.commands import MachineError

PRELUDE = (Path(__file__).parent / "in_range.py").read_text()
OPERATOR = (Path(__file__).parent / "in_api.py").read_text()
PYTHON = "/opt/cyroid/bin/python"
#: What the services are called, for looking whether one was killed.
SERVICES = (
    *("redis", "deployer", "tracker", "range-gateway", "range-proxy", "registry-pull", "tar-server", "api"),
    *("engine-proxy", "ingest"),
)
HONEST_SECONDS = 120.0


@dataclass
class Stage:
    """`attacker` and `victim` are ranges of the stack; `data` its folder, `docker_host` its engine."""

    attacker: str
    victim: str
    data: Path
    docker_host: str = ""
    prefix: str = "cyroid-range-"
    _restarts: dict[str, int] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    # ---- the host's side ----

    def run(self, *words: str, stdin: bytes = b"", seconds: float = 300.0) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            words, input=stdin, capture_output=True, env=self._environment(), check=False, timeout=seconds
        )

    def started(self, *words: str) -> subprocess.Popen[bytes]:
        """A program that runs beside what is done meanwhile."""
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment())

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **({"DOCKER_HOST": self.docker_host} if self.docker_host else {})}

    def docker(self, *words: str, stdin: bytes = b"", seconds: float = 300.0) -> str:
        """What it says. Raises MachineError."""
        done = self.run("docker", *words, stdin=stdin, seconds=seconds)
        if done.returncode:
            raise MachineError(f"docker {' '.join(words[:4])}: {done.stderr.decode(errors='replace')[-500:]}")
        return done.stdout.decode(errors="replace").strip()

    def cyroid(self, *words: str, seconds: float = 300.0) -> str:
        """`cyroid-images …` in the API's container: all that it says, whatever its status."""
        done = self.run("docker", "exec", "cyroid-images-api-1", "cyroid-images", *words, seconds=seconds)
        return (done.stdout + done.stderr).decode(errors="replace")

    def redis(self, *words: str) -> str:
        """As the operator, who reads everything."""
        return self.docker("exec", "cyroid-images-redis-1", "redis-cli", *words)

    def address(self, container: str, network: str) -> str:
        form = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
        return self.docker("inspect", "--format", form, container)

    def image(self) -> str:
        """A new image of one small layer on the host's engine."""
        name = f"attacked-{uuid.uuid4().hex}:1"
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo("content")
            entry.size = 200_000
            archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
        self.docker("import", "-", name, stdin=packed.getvalue())
        return name

    def deploy(
        self, range_id: str, image: str, *, name: str | None = None, seconds: float = HONEST_SECONDS
    ) -> tuple[str, float]:
        """Ask for a deployment and wait so long for its end: its state, and how long it took."""
        asked = {"range_id": range_id, "images": [image], "deployment_id": name, "seconds": seconds}
        found = self._operator(asked)
        return found["state"], found["seconds"]

    def state(self, deployment_id: str) -> str:
        """How a deployment is."""
        return str(self._operator({"show": deployment_id})["state"])

    def _operator(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One question to the operator's process (`in_api.py`), which is started with the first."""
        if self._process is None or self._process.poll() is not None:
            command = ["docker", "exec", "-i", "cyroid-images-api-1", "python", "-c", OPERATOR]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment()
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise MachineError("the operator's process in the API's container ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the operator's process."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process.wait(timeout=30)
            self._process = None

    def honest(self, image: str = "") -> float:
        """Seconds that a deployment of a small new image to the victim takes; HONEST_SECONDS if it does not succeed."""
        state, seconds = self.deploy(self.victim, image or self.image())
        return seconds if state == "succeeded" else HONEST_SECONDS

    def held_by(self, range_id: str, image: str) -> bool:
        """Whether the range's engine has the image."""
        return bool(self.docker("exec", f"{self.prefix}{range_id}", "docker", "image", "ls", "--quiet", image))

    def restarts(self) -> dict[str, int]:
        """How often each service was started again."""
        words = ["inspect", "--format", "{{.RestartCount}}", *(f"cyroid-images-{name}-1" for name in SERVICES)]
        return dict(zip(SERVICES, map(int, self.docker(*words).split()), strict=True))

    def killed(self) -> list[str]:
        """Services that ended since this was asked last."""
        now = self.restarts()
        before, self._restarts = self._restarts, now
        return [name for name, count in now.items() if count > before.get(name, count)]

    # ---- the attacker's side ----

    def shell(self, script: str, seconds: float = 120.0) -> subprocess.CompletedProcess[bytes]:
        """As root in the attacker's container."""
        return self.run("docker", "exec", f"{self.prefix}{self.attacker}", "sh", "-c", script, seconds=seconds)

    def attack(self, code: str, *, seconds: float = 300.0, **values: object) -> str:
        """Run `code` in the attacker's container after `in_range.py`; what it says, errors included."""
        given = f"VALUES = {json.dumps(values)!r}\nVALUES = json.loads(VALUES)\n"
        name = f"{self.prefix}{self.attacker}"
        source = PRELUDE + given + code
        done = self.run("docker", "exec", "-i", name, PYTHON, "-", stdin=source.encode(), seconds=seconds)
        return (done.stdout + done.stderr).decode(errors="replace")[-4000:]
