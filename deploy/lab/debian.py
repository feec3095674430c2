"""Debian packages without installing them: downloaded by the machine's own apt, unpacked into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.lab.commands import need, run


def unpack_packages(packages: Sequence[str], root: Path, downloads: Path, options: Sequence[str] = ()) -> None:
    """Unpack the files of `packages` into `root`; no maintainer script runs. `options` go to apt-get."""
    downloads.mkdir(parents=True, exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    # As root: apt's own user may not write to a folder of ours.
    run(["apt-get", "-qq", "-oAPT::Sandbox::User=root", *options, "download", *packages], cwd=downloads)
    for package in packages:
        for archive in downloads.glob(f"{package}_*.deb"):
            run([need("dpkg", "dpkg"), "-x", str(archive), str(root)])
