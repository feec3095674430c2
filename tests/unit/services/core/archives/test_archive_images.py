"""Which images an archive holds."""

import json

import pytest

from services.core.archives.archive_images import ArchiveContent
from services.core.images.manifests import OCI_MANIFEST
from services.errors import BadArchive
from tests.unit.services.core.archives.tars import CONFIG, LAYER, blob, oci, oci_manifest, pointer


def _content(files: dict[str, bytes]) -> ArchiveContent:
    documents = {path: content for path, content in files.items() if content[:1] in {b"{", b"["}}
    return ArchiveContent(origin="x.tar", file=lambda path: path if path in files else None, documents=documents)


def test_an_image_of_several_rows_has_all_their_names() -> None:
    """Each image once."""
    files = {"c.json": CONFIG, "l.tar": LAYER}
    rows = [{"Config": "c.json", "RepoTags": [name], "Layers": ["l.tar"]} for name in ("a:1", "b:1", "a:1")]
    (image,) = _content(files).docker(json.dumps(rows).encode())
    assert image.names == ("a:1", "b:1")


def test_layers_elsewhere_are_named() -> None:
    """A layer that is not in the archive and has addresses, as of Windows base images."""
    manifest = json.loads(oci_manifest())
    manifest["layers"][0]["urls"] = ["https://elsewhere.test/layer"]
    content = json.dumps(manifest).encode()
    files = {blob(CONFIG): CONFIG, blob(content): content}
    index = json.dumps({"manifests": [pointer(content, OCI_MANIFEST)]}).encode()
    with pytest.raises(BadArchive, match=r"leaves out layer .*, which lies at 'https://elsewhere\.test/layer'"):
        _content(files).oci(index, "linux/amd64")


def test_indexes_within_indexes_have_an_end() -> None:
    """One that names itself cannot be made, a long chain can."""
    files = oci("web:1")
    (top,) = json.loads(files["index.json"])["manifests"]
    for _ in range(100):
        inner = json.dumps({"manifests": [{**top, "platform": {"os": "linux", "architecture": "amd64"}}]}).encode()
        files[blob(inner)] = inner
        top = pointer(inner, "application/vnd.oci.image.index.v1+json")
    with pytest.raises(BadArchive, match="indexes within indexes"):
        _content(files).oci(json.dumps({"manifests": [top]}).encode(), "linux/amd64")
