"""Front of two registries of the laboratory (HAProxy, as deploy/registry-s3.haproxy.cfg has it), on loopback."""

from __future__ import annotations

import http.client
from pathlib import Path

from deploy.lab.registry_server import RegistryServer
from deploy.lab.server import Server, answers_ok, free_port
from deploy.machine.commands import need

CONFIGURATION = Path(__file__).parents[1] / "registry-s3.haproxy.cfg"


class RegistryFront(Server):
    """One address for two replicas, which share their storage."""

    def __init__(self, name: str, folder: Path, mark: str, replicas: tuple[RegistryServer, RegistryServer]) -> None:
        super().__init__(name, folder, mark)
        self.port = free_port()
        self.replicas = replicas
        self.storage = replicas[0].storage

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def environment(self) -> dict[str, str]:
        one, two = (replica.address for replica in self.replicas)
        return {**super().environment(), "REGISTRY_LISTEN": self.address, "REGISTRY_ONE": one, "REGISTRY_TWO": two}

    def command(self) -> list[str]:
        return [need("haproxy", "haproxy"), "-db", "-f", str(CONFIGURATION)]

    def answers(self) -> bool:
        return answers_ok(http.client.HTTPConnection("127.0.0.1", self.port, timeout=1), "/v2/")
