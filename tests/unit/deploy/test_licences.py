"""Licences are listed, and everything that is installed is held to its hash."""

from __future__ import annotations

import re
from pathlib import Path

from deploy.licences import PAGE, licence, page, pinned, shipped

ROOT = Path(__file__).parents[3]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()
#: Where something is installed: for people and CI, and into the images.
INSTALLERS = ("scripts/setup", "deploy/install-services", "deploy/Dockerfile", "dind/Dockerfile", ".ci/run", "Makefile")


def test_the_page_is_that_of_the_lock_file() -> None:
    """`scripts/draw-licences` writes it; every package names a licence."""
    assert PAGE.read_text() == page(LOCK, PROJECT)
    assert {name for name in pinned(LOCK) if not licence(name)} == set()


def test_shipped_is_what_the_project_needs() -> None:
    """With what that needs in turn, and no tool of the tests."""
    found = shipped(LOCK, PROJECT)
    assert {"aiohttp", "yarl", "hiredis", "hpack"} <= found
    assert found & {"pytest", "mypy", "hypothesis", "docker"} == set()


def test_no_shipped_package_asks_for_the_source_of_what_uses_it() -> None:
    """No GPL, AGPL or SSPL is in the images' Python packages."""
    assert [name for name in shipped(LOCK, PROJECT) if re.search(r"\b(?:A?GPL|SSPL)", licence(name))] == []


def test_every_package_of_the_lock_file_has_hashes() -> None:
    """A line without one would make pip refuse the whole file, and nobody should take that check out."""
    parts = re.split(r"^(?=[A-Za-z0-9._-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(parts) == len(pinned(LOCK)) > 50
    assert [part.partition("==")[0] for part in parts if "--hash=sha256:" not in part] == []
    assert not re.search(r"--(?:index-url|extra-index-url|trusted-host|find-links)", LOCK)


def test_nothing_is_installed_without_its_hash() -> None:
    """Each `pip install` or `pip download` demands hashes, or reaches no index at all."""
    found = []
    for name in INSTALLERS:
        for line in (ROOT / name).read_text().splitlines():
            if re.search(r"\bpip\b.* (?:install|download) ", line) and not line.lstrip().startswith("#"):
                held = "--require-hashes" in line or "--no-index" in line or "--no-deps --no-build-isolation" in line
                found.append((name, held))
    assert {name for name, _ in found} == {"scripts/setup", "deploy/install-services"}
    assert [name for name, held in found if not held] == []
