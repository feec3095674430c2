"""Debian packages without installing them: downloaded by the machine's own apt, unpacked into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.lab.commands import LabError, need, run


def unpack_packages(packages: Sequence[str], root: Path, downloads: Path, options: Sequence[str] = ()) -> None:
    """Unpack the files of `packages` into `root`; no maintainer script runs. `options` go to apt-get.

    Raises LabError when they cannot be downloaded, also not after `apt-get update`.
    """
    downloads.mkdir(parents=True, exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    _download(packages, downloads, options)
    for package in packages:
        for archive in downloads.glob(f"{package}_*.deb"):
            run([need("dpkg", "dpkg"), "-x", str(archive), str(root)])


def _download(packages: Sequence[str], downloads: Path, options: Sequence[str]) -> None:
    # As root: apt's own user may not write to a folder of ours.
    apt = [need("apt-get", "apt"), "-qq", "-oAPT::Sandbox::User=root", "-oAcquire::Retries=3", *options]
    try:
        run([*apt, "download", *packages], cwd=downloads)
    except LabError:
        # Containers come with empty lists, and lists that are old name what the mirror no longer has.
        try:
            run([*apt, "update"])
            run([*apt, "download", *packages], cwd=downloads)
        except LabError as problem:
            raise LabError(
                f"the Debian packages {', '.join(packages)} cannot be downloaded, also not after `apt-get update`: "
                f"see that this machine reaches its Debian mirror, then try again\n{problem}"
            ) from problem
