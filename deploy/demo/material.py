"""Contents of the demonstration's images: a base from Debian packages, bulk that does not compress, a site."""

from __future__ import annotations

import hashlib
from pathlib import Path

from deploy.demo.show import short
from deploy.lab.engine_server import EngineServer

BASE = "training/base:1"
WEB = "training/web:1.0"
TOOLS = "training/tools:2.3"
NOTES = "training/web:with-notes"
REPORT = "training/report:1"
LATE = "training/late:1"
DATA_BYTES = 24_000_000
TOOLS_BYTES = 6_000_000
REPORT_BYTES = 4_000_000


def bulk(count: int, seed: str) -> bytes:
    """Bytes that look random and are the same each time."""
    return hashlib.shake_256(seed.encode()).digest(count)


def web_context(folder: Path, version: str) -> Path:
    """A build context: the large data first, the site that changes last."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "site").mkdir(exist_ok=True)
    if not (folder / "data/archive.bin").exists():
        (folder / "data/archive.bin").write_bytes(bulk(DATA_BYTES, "web"))
    (folder / "site/version").write_text(f"{version}\n")
    (folder / "site/index.html").write_text(f"<h1>Training site {version}</h1>\n" * 2000)
    (folder / "Dockerfile").write_text(
        f"FROM {BASE}\n"
        "COPY data /srv/data\n"
        "RUN mkdir -p /var/log/training && echo 'Authorised training only.' > /etc/motd\n"
        "COPY site /srv/site\n"
        'CMD ["httpd", "-f", "-p", "8080", "-h", "/srv/site"]\n'
    )
    return folder


def one_more_layer(folder: Path, base: str, name: str, count: int) -> Path:
    """A build context that adds `count` bytes as /srv/NAME.bin to an image."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.bin").write_bytes(bulk(count, name))
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY {name}.bin /srv/{name}.bin\n")
    return folder


def archive(host: EngineServer, folder: Path) -> Path:
    """A `docker save` archive of an image that no engine has any more, as somebody might send it."""
    context = one_more_layer(folder / "tools", BASE, "tools", TOOLS_BYTES)
    host.docker("build", "--quiet", "--tag", TOOLS, str(context))
    made = folder / f"{short(TOOLS).replace('/', '-').replace(':', '-')}.tar"
    host.docker("save", "--output", str(made), TOOLS)
    host.docker("rmi", TOOLS)
    return made
