"""Base image for demo and tests: busybox and some Debian files, as a tar for `docker import`."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from deploy.machine.commands import run
from deploy.machine.debian import unpack_packages

PACKAGES = ("busybox-static", "netbase", "base-files")


def base_image_tar(cache: Path) -> Path:
    """The tar, made once. Has `/bin/sh` and busybox's commands, `/etc`, `/tmp`; about 2.5 MB."""
    made = cache / "base-image.tar"
    if not made.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="base-image-") as scratch:
            root = Path(scratch, "root")
            unpack_packages(PACKAGES, root, Path(scratch, "downloads"))
            _arrange(root)
            pack(root, Path(scratch, "packed.tar")).replace(made)
    return made


def _arrange(root: Path) -> None:
    for superfluous in ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/initramfs-tools"):
        shutil.rmtree(root / superfluous, ignore_errors=True)
    for applet in run([str(root / "bin/busybox"), "--list"]).split():
        if not (link := root / "bin" / applet).exists():
            link.symlink_to("busybox")
    for folder in ("etc", "proc", "sys", "dev", "root", "var/tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    os.chmod(root / "tmp", 0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")


def pack(root: Path, archive: Path) -> Path:
    """A folder as a tar whose bytes depend on its content alone: sorted, no times, owned by root."""
    stable = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]
    run(["tar", *stable, "-C", str(root), "-c", "-f", str(archive), "."])
    return archive
