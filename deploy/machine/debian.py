"""Debian packages without installing them: downloaded by the machine's own apt, unpacked into a folder."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from deploy.machine.commands import MachineError, need, run


def unpack_packages(packages: Sequence[str], root: Path, downloads: Path, options: Sequence[str] = ()) -> None:
    """Unpack the files of `packages` into `root`; no maintainer script runs. `options` go to apt-get.

    Raises MachineError when they cannot be downloaded, also not after `apt-get update`.
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
    except MachineError:
        # Containers come with empty lists, and lists that are old name what the mirror no longer has.
        try:
            run([*apt, "update"])
            run([*apt, "download", *packages], cwd=downloads)
        except MachineError as problem:
            raise MachineError(
                f"the Debian packages {', '.join(packages)} cannot be downloaded, also not after `apt-get update`: "
                f"see that this machine reaches its Debian mirror, then try again\n{problem}"
            ) from problem


def suite_options(suite: str, folder: Path) -> list[str]:
    """apt options that make it see `suite` alone, with its lists in `folder`."""
    sources, lists, archives = folder / "sources.list", folder / "lists", folder / "cache"
    keys = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    signed = f"[signed-by={keys}] " if keys.exists() else ""
    sources.write_text(f"deb {signed}{mirror()} {suite} main\n")
    (lists / "partial").mkdir(parents=True)
    (archives / "archives/partial").mkdir(parents=True)
    options = [
        f"-oDir::Etc::sourcelist={sources}",
        "-oDir::Etc::sourceparts=-",
        f"-oDir::State::lists={lists}",
        f"-oDir::Cache={archives}",
        "-oAPT::Sandbox::User=root",
    ]
    run(["apt-get", "-q", "-oAcquire::Retries=3", *options, "update"])
    return options


def mirror() -> str:
    """Where this machine gets its own release from."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    for line in run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)"]).splitlines():
        address, _, codename = line.partition(" ")
        if codename == release:
            return address
    raise MachineError(
        f"apt knows no mirror for {release or 'this machine'}: run `apt-get update` and look at its sources"
    )
