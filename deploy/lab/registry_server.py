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
    is in that object storage, and in no folder."""

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
    ) -> None:
        super().__init__(name, folder, mark)
        self.port = port or free_port()
        self.storage = storage or folder / "storage"
        self._readonly = readonly
        self._cache = cache
        self._s3 = s3

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
                **self._driver(),
                "delete": {"enabled": True},
                "maintenance": {"readonly": {"enabled": self._readonly}},
                **({"cache": {"blobdescriptor": "inmemory"}} if self._cache else {}),
            },
            "http": {"addr": self.address},
            # Layers elsewhere are taken, so that it can hold what other registries hold.
            "validation": {"disabled": False, "manifests": {"urls": {"allow": ["^https://"]}}},
        }
        (self.folder / "config.yml").write_text(json.dumps(config, indent=2))

    def _driver(self) -> dict[str, object]:
        if self._s3 is None:
            return {"filesystem": {"rootdirectory": str(self.storage)}}
        place = {"regionendpoint": self._s3.url, "region": REGION, "bucket": BUCKET, "secure": False}
        keys = {"accesskey": ACCESS_KEY, "secretkey": SECRET_KEY}
        return {"s3": {**place, **keys, "rootdirectory": "/"}, "redirect": {"disable": True}}

    def environment(self) -> dict[str, str]:
        """Without a bundle of authorities for S3: distribution 2.8 ends at its start where one is named."""
        return {name: value for name, value in super().environment().items() if name != "AWS_CA_BUNDLE"}

    def command(self) -> list[str]:
        return [need("docker-registry", "docker-registry"), "serve", str(self.folder / "config.yml")]

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
