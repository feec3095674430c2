"""The SBOM of an image."""

from __future__ import annotations

import json
import re
from importlib.metadata import distributions
from pathlib import Path

import pytest

from deploy.container.sbom import debian_packages, main, python_packages, sbom

ROOT = Path(__file__).parents[4]
STATUS = """Package: libssl3
Status: install ok installed
Architecture: amd64
Version: 3.0.15-1~deb12u1
Description: Secure Sockets Layer toolkit
 Package: not-this: it is text

Package: gone
Status: deinstall ok config-files
Version: 1

Package: docker.io
Status: install ok installed
Architecture: amd64
Version: 1:20.10.24+dfsg1-1
"""


def test_debian_packages_are_those_that_are_installed(tmp_path: Path) -> None:
    """With version, architecture, and the licences of a copyright file in DEP-5, where it is there."""
    (tmp_path / "libssl3").mkdir()
    (tmp_path / "libssl3/copyright").write_text(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nFiles: *\nLicense: Apache-2.0\n"
    )
    found = list(debian_packages(STATUS, tmp_path))
    assert [(one["name"], one["version"]) for one in found] == [
        ("libssl3", "3.0.15-1~deb12u1"),
        ("docker.io", "1:20.10.24+dfsg1-1"),
    ]
    assert found[0]["licenses"] == [{"license": {"name": "Apache-2.0"}}]
    assert found[1]["purl"] == "pkg:deb/debian/docker.io@1%3A20.10.24%2Bdfsg1-1?arch=amd64"
    assert "licenses" not in found[1]


def test_every_python_package_has_its_version_and_licence() -> None:
    """Of this installation, which has all that an image has, and the tools."""
    found = {one["name"]: one for one in python_packages(distributions())}
    assert {"aiohttp", "redis", "msgspec", "cyroid-images"} <= set(found)
    assert {name for name, one in found.items() if "licenses" not in one} <= {"cyroid-images", "docker", "pip"}
    assert found["prometheus-client"]["purl"] == f"pkg:pypi/prometheus-client@{found['prometheus-client']['version']}"


def test_the_document_is_cyclonedx_and_the_same_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sorted, each component once; written to a file or printed."""
    assert main([str(tmp_path / "sbom.json")]) == main([]) == 0
    text = (tmp_path / "sbom.json").read_text()
    assert text == capsys.readouterr().out
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    refs = [one["bom-ref"] for one in document["components"]]
    assert refs == sorted(set(refs))
    assert any(ref.startswith("pkg:deb/debian/dpkg@") for ref in refs)
    twice = [*python_packages(distributions())] * 2
    assert len(sbom(twice, version="1")["components"]) == len({one["purl"] for one in twice})


@pytest.mark.parametrize("dockerfile", ["deploy/Dockerfile", "dind/Dockerfile"])
def test_the_images_of_the_services_have_theirs(dockerfile: str) -> None:
    """Written by the last stage, so that it is of what the image has."""
    last = re.split(r"^FROM ", (ROOT / dockerfile).read_text(), flags=re.MULTILINE)[-1]
    assert "RUN /opt/cyroid/bin/python -m deploy.container.sbom /opt/cyroid/sbom.json" in last
    assert last.index("deploy.container.sbom") > last.index("apt-get install")
