"""Which image of an index a platform runs."""

import msgspec
import pytest

from services.core.images.indexes import Index
from services.core.images.manifests import OCI_INDEX, Manifest
from services.errors import NotAnImage, Unavailable


def index(*platforms: str | None, **more: object) -> Index:
    """An index of images for those platforms, digests in their order, with the attestation that buildx adds."""
    entries: list[dict[str, object]] = []
    for number, platform in enumerate(platforms):
        entry: dict[str, object] = {"mediaType": "m", "digest": f"sha256:{number}", "size": 1, "annotations": None}
        if platform is not None:
            os, architecture, *variant = platform.split("/")
            entry["platform"] = {"os": os, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        entries.append(entry)
    attestation = {
        "digest": "sha256:a",
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    content = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*entries, attestation]})
    found = Index.parse(content)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("platforms", "asked", "chosen"),
    [
        (("linux/arm64", "linux/amd64"), "linux/amd64", 1),
        (("linux/arm/v6", "linux/arm/v7"), "linux/arm/v7", 1),
        (("linux/arm/v6", "linux/arm"), "linux/arm/v7", 1),
        (("linux/arm64/v8",), "linux/arm64", 0),
        ((None,), "linux/amd64", 0),
        (("linux/s390x",), None, 0),
    ],
)
def test_the_image_of_the_platform_is_chosen(platforms: tuple[str | None, ...], asked: str | None, chosen: int) -> None:
    """The same variant before one without, and never an attestation."""
    assert index(*platforms).choose(asked).digest == f"sha256:{chosen}"


def test_what_has_nothing_for_the_platform_says_what_it_has() -> None:
    """And one without any image says that."""
    with pytest.raises(NotAnImage, match=r"linux/arm64, windows/amd64, with nothing for linux/amd64"):
        index("linux/arm64", "windows/amd64").choose("linux/amd64")
    with pytest.raises(NotAnImage, match="no image at all"):
        index().choose("linux/amd64")


def test_where_the_platform_decides_it_has_to_be_known() -> None:
    """A range that has not announced itself yet is waited for."""
    with pytest.raises(Unavailable, match="not said yet"):
        index("linux/arm64", "linux/amd64").choose(None)


@pytest.mark.parametrize(
    ("config", "layer", "reason"),
    [
        ("application/vnd.cncf.helm.config.v1+json", "x", "an artifact .*helm"),
        ("application/vnd.oci.empty.v1+json", "x", "an artifact"),
        ("application/vnd.oci.image.config.v1+json", "application/vnd.in-toto+json", "an attestation"),
    ],
)
def test_artifacts_are_no_images(config: str, layer: str, reason: str) -> None:
    """Each is called what it is."""
    blob = {"digest": "sha256:1", "size": 1}
    content = {"schemaVersion": 2, "config": {"mediaType": config, **blob}, "layers": [{"mediaType": layer, **blob}]}
    with pytest.raises(NotAnImage, match=reason):
        Manifest.parse(msgspec.json.encode(content))
