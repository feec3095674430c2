"""What the images ship: the services and what Compose runs beside them, and nothing that only makes or tests them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[2]
#: A module that a container runs: in Compose, in the range's image, or over `docker compose exec`.
RUN = re.compile(r'-m"?,? "?(deploy\.[a-z_.]+)')


def _shipped() -> set[str]:
    """The packages that an installation has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return set(find_packages(str(ROOT), include=project["tool"]["setuptools"]["packages"]["find"]["include"]))


def test_no_image_has_what_makes_or_tests_it() -> None:
    """No measurements, no laboratory, no demonstration, no tests, and nothing that steers Compose from the host."""
    tops = {".".join(package.split(".")[:2]) for package in _shipped() if package.partition(".")[0] != "services"}
    assert {top for top in tops if top.partition(".")[0] != "events"} == {"deploy", "deploy.container"}


def test_what_containers_run_is_shipped() -> None:
    """Health checks, the preparation of the data folder and the guard of the bridges."""
    told = [ROOT / "docker-compose.yml", ROOT / "dind/range-healthy"]
    run = {module for path in told for module in RUN.findall(path.read_text())}
    assert {"deploy.container.prepare", "deploy.container.health", "deploy.container.bridge_guard"} <= run
    assert {module for module in run if module.rpartition(".")[0] not in _shipped()} == set()


def test_the_build_reads_what_it_installs() -> None:
    """The build's context has every package that is to be installed."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for package in _shipped() - {"deploy"}:
        folder = package.replace(".", "/")
        assert any(folder == one or folder.startswith(f"{one}/") for one in kept), package
