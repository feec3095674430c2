"""SBOM of an image: its Python and Debian packages with versions and licences, as CycloneDX 1.6 (ECMA-424).

    python -m deploy.container.sbom [FILE]        of the system that this runs in; `make images` puts it into the images

The same packages give the same bytes: nothing in it is a time or made up.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

DPKG_STATUS = Path("/var/lib/dpkg/status")
COPYRIGHTS = Path("/usr/share/doc")
_LICENCE_LINE = re.compile(r"^License: *(\S.*)$", re.MULTILINE)
#: A classifier's last part → the SPDX identifier of that licence.
_SPDX = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
#: How the field `License` has been written.
_WRITTEN = {
    "Apache 2": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache-2": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD 3-Clause": "BSD-3-Clause",
    "MIT License": "MIT",
    "MPL 2.0": "MPL-2.0",
    "PSF": "PSF-2.0",
}
#: A text of more than a line is a licence itself and no name of one.
_NAME_CHARACTERS = 60


def licence_of(package: Distribution) -> str:
    """The licence that a Python package names, as an SPDX expression where that is clear; empty where it names none."""
    told = package.metadata
    if expression := _first(told.get_all("License-Expression")):
        return expression
    classifiers = [str(text) for text in told.get_all("Classifier") or () if str(text).startswith("License ::")]
    named = [_SPDX.get(text.rpartition(" :: ")[2], "") for text in classifiers]
    if found := " OR ".join(dict.fromkeys(name for name in named if name)):
        return found
    written = _first(told.get_all("License")).strip()
    if not written or "\n" in written or len(written) > _NAME_CHARACTERS:
        return ""
    return _WRITTEN.get(written, written)


def _first(values: Sequence[Any] | None) -> str:
    return str(values[0]) if values else ""


def python_packages(found: Iterable[Distribution]) -> Iterator[dict[str, Any]]:
    """A component for each installed distribution."""
    for package in found:
        name = re.sub(r"[-_.]+", "-", str(package.metadata["Name"])).lower()
        yield _component(name, package.version, f"pkg:pypi/{name}@{package.version}", licence_of(package))


def debian_packages(status: str, copyrights: Path = COPYRIGHTS) -> Iterator[dict[str, Any]]:
    """A component for each package that dpkg's status file calls installed."""
    for paragraph in status.split("\n\n"):
        fields = _fields(paragraph)
        if fields.get("Status", "").split(" ")[-1:] != ["installed"]:
            continue
        name, version = fields["Package"], fields["Version"]
        purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace(':', '%3A')}"
        purl += f"?arch={fields['Architecture']}" if "Architecture" in fields else ""
        yield _component(name, version, purl, _debian_licence(copyrights / name / "copyright"))


def sbom(components: Iterable[Mapping[str, Any]], *, version: str) -> dict[str, Any]:
    """The document."""
    unique = {component["bom-ref"]: component for component in components}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "cyroid-images",
                "name": "cyroid-images",
                "version": version,
            }
        },
        "components": [unique[ref] for ref in sorted(unique)],
    }


def _component(name: str, version: str, purl: str, licence: str) -> dict[str, Any]:
    component: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence:
        component["licenses"] = [{"license": {"name": licence}}]
    return component


def _fields(paragraph: str) -> dict[str, str]:
    """The one-line fields of a paragraph (deb822)."""
    lines = (line.partition(": ") for line in paragraph.splitlines() if not line.startswith((" ", "\t")))
    return {name: value for name, colon, value in lines if colon}


def _debian_licence(file: Path) -> str:
    """The licences that a copyright file in DEP-5 names; empty for others, and where the file was left out."""
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return ""
    if not text.startswith("Format:"):
        return ""
    return " AND ".join(sorted({name.strip() for name in _LICENCE_LINE.findall(text)}))


def main(arguments: list[str]) -> int:
    """Write the document to the file named, or print it."""
    installed = list(distributions())
    version = next((one.version for one in installed if one.metadata["Name"] == "cyroid-images"), "0")
    components = list(python_packages(installed))
    if DPKG_STATUS.exists():
        components += debian_packages(DPKG_STATUS.read_text(errors="replace"))
    text = json.dumps(sbom(components, version=version), indent=1) + "\n"
    if arguments:
        Path(arguments[0]).write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
