"""Registry cache of the laboratory (nginx, as deploy.container.registry_cache configures it), on loopback."""

from __future__ import annotations

import http.client
from pathlib import Path

from deploy.container.registry_cache import MAX_SIZE, Tls, command, configuration, make_folders
from deploy.lab.server import Server, answers_ok, free_port
from deploy.machine.commands import need


class CacheServer(Server):
    """A host's cache of the registry, or of another cache, at `origin`. Its content outlives a stop."""

    def __init__(
        self,
        name: str,
        folder: Path,
        mark: str,
        *,
        origin: str,
        max_size: str = MAX_SIZE,
        fresh_seconds: int = 60,
        tls: Tls | None = None,
    ) -> None:
        super().__init__(name, folder, mark)
        self.port = free_port()
        self.origin, self.max_size, self.fresh_seconds, self.tls = origin, max_size, fresh_seconds, tls

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def content(self) -> Path:
        """The folder of the slices."""
        return self.folder / "content"

    def prepare(self) -> None:
        make_folders(self.folder)
        text = configuration(
            self.origin,
            listen=self.address,
            folder=self.folder,
            max_size=self.max_size,
            workers="1",
            fresh_seconds=self.fresh_seconds,
            tls=self.tls,
        )
        # The machine's own file system may be nearly full: that is no reason for a laboratory to keep nothing.
        text = text.replace(" min_free=2g", "")
        (self.folder / "nginx.conf").write_text(f"user root;\n{text}")

    def command(self) -> list[str]:
        program, *rest = command(self.folder / "nginx.conf")
        return [need(program, "nginx"), *rest]

    def answers(self) -> bool:
        return answers_ok(http.client.HTTPConnection("127.0.0.1", self.port, timeout=1), "/v2/")
