"""Registry server of the laboratory (distribution 2.8) on a folder: deletion on, no blob cache, loopback."""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass
from pathlib import Path

from deploy.lab.object_storage import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, ObjectStorage
from deploy.lab.server import Server, answers_ok, free_port
from deploy.machine.commands import need

#: What all replicas on object storage have, and the secret of those in a laboratory.
S3_CONFIGURATION = Path(__file__).parents[1] / "registry-s3.yml"
SECRET = "laboratory"
_ACCESS = re.compile(r'"([A-Z]+) (\S+) HTTP/[0-9.]+" ([0-9]{3}) ([0-9]+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as the registry's access log has it. `sent_bytes` is the answer's body."""

    method: str
    path: str
    status: int
    sent_bytes: int


class RegistryServer(Server):
    """`storage` may be another registry's: two processes on one folder serve the same content. With `s3` the content
    is in that object storage, and in no folder; its configuration is then deploy/registry-s3.yml, and registries with
    the same `secret` take up one another's uploads."""

    def __init__(
        self,
        name: str,
        folder: Path,
        mark: str,
        *,
        storage: Path | None,
        readonly: bool,
        port: int | None = None,
        cache: bool = False,
        s3: ObjectStorage | None = None,
        secret: str = SECRET,
    ) -> None:
        super().__init__(name, folder, mark)
        self.port = port or free_port()
        self.storage = storage or folder / "storage"
        self._readonly = readonly
        self._cache = cache
        self._s3 = s3
        self.secret = secret

    @property
    def configuration(self) -> Path:
        """The file with its configuration; on object storage more of it is in `environment`."""
        return self.folder / "config.yml" if self._s3 is None else S3_CONFIGURATION

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def prepare(self) -> None:
        self.storage.mkdir(parents=True, exist_ok=True)
        # No `cache`: a running registry's blob cache still says "exists" after garbage collection (distribution#1939).
        config = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage)},
                "delete": {"enabled": True},
                "maintenance": {"readonly": {"enabled": self._readonly}},
                **({"cache": {"blobdescriptor": "inmemory"}} if self._cache else {}),
            },
            "http": {"addr": self.address},
            # Layers elsewhere are taken, so that it can hold what other registries hold.
            "validation": {"disabled": False, "manifests": {"urls": {"allow": ["^https://"]}}},
        }
        (self.folder / "config.yml").write_text(json.dumps(config, indent=2))

    def environment(self) -> dict[str, str]:
        """Without a bundle of authorities for S3: distribution 2.8 ends at its start where one is named."""
        plain = {name: value for name, value in super().environment().items() if name != "AWS_CA_BUNDLE"}
        if self._s3 is None:
            return plain
        place = {"REGIONENDPOINT": self._s3.url, "REGION": REGION, "BUCKET": BUCKET, "SECURE": "false"}
        keys = {"ACCESSKEY": ACCESS_KEY, "SECRETKEY": SECRET_KEY}
        return {
            **plain,
            **{f"REGISTRY_STORAGE_S3_{name}": value for name, value in (place | keys).items()},
            "REGISTRY_HTTP_ADDR": self.address,
            "REGISTRY_HTTP_SECRET": self.secret,
            "REGISTRY_LOG_ACCESSLOG_DISABLED": "false",
        }

    def command(self) -> list[str]:
        return [need("docker-registry", "docker-registry"), "serve", str(self.configuration)]

    def requests(self, since: int = 0) -> list[Request]:
        """Requests from the access log, oldest first, from byte `since` of the log on (`log.stat().st_size` is now)."""
        with self.log.open("rb") as log:
            log.seek(since)
            said = log.read().decode(errors="replace")
        return [
            Request(method=found[1], path=found[2], status=int(found[3]), sent_bytes=int(found[4]))
            for found in _ACCESS.finditer(said)
        ]

    def answers(self) -> bool:
        return answers_ok(http.client.HTTPConnection("127.0.0.1", self.port, timeout=1), "/v2/")
