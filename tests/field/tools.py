"""podman, skopeo and buildah of this machine, each with its storage in a folder of its own, making archives."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tools:
    """Runs the tools on storage below `folder`. No network, no namespaces, no mounts: images are built from files."""

    folder: Path

    def run(self, tool: str, *arguments: str) -> str:
        """The output of podman or buildah; skopeo has no storage."""
        storage = (
            "--root",
            str(self.folder / "storage"),
            "--runroot",
            str(self.folder / "run"),
            "--storage-driver=vfs",
        )
        home = {"HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder), "TMPDIR": str(self.folder)}
        done = subprocess.run(
            [tool, *(() if tool == "skopeo" else storage), *arguments],
            env={**os.environ, **home},
            check=False,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def copy(self, source: str, target: str) -> None:
        """`skopeo copy`, with no policy of the machine's."""
        self.run("skopeo", "--insecure-policy", "copy", "--quiet", source, target)

    def built_by_buildah(self, name: str, files: Path) -> None:
        """An image of one layer in the storage."""
        container = self.run("buildah", "from", "scratch")
        self.run("buildah", "copy", "--quiet", container, str(files), "/t")
        self.run("buildah", "commit", "--quiet", "--rm", container, name)

    def built_by_podman(self, name: str, files: Path) -> None:
        """An image of two layers in the storage."""
        (files / "Dockerfile").write_text("FROM scratch\nCOPY content /t/content\nCOPY Dockerfile /t/Dockerfile\n")
        self.run("podman", "build", "--quiet", "--isolation=chroot", "--layers", "--tag", name, str(files))
