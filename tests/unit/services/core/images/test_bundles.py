"""The documents of a bundle."""

import pytest

from services.core.images.bundles import BundledImage, BundleIndex, BundleList, blob_name
from services.core.images.manifests import OCI_MANIFEST, Descriptor
from services.errors import BadArchive

DIGEST = "sha256:" + "1" * 64


def test_an_image_in_the_index_keeps_its_reference() -> None:
    """As the annotation that other tools read."""
    image = BundledImage.of(Descriptor(media_type=OCI_MANIFEST, digest=DIGEST, size=7), "docker.io/library/web:1")
    assert image.reference == "docker.io/library/web:1"
    assert blob_name(DIGEST) == "blobs/sha256/" + "1" * 64


def test_an_image_without_a_name_is_refused() -> None:
    """Nobody could say what it is loaded as."""
    with pytest.raises(BadArchive, match="has no name"):
        _ = BundledImage(media_type=OCI_MANIFEST, digest=DIGEST, size=7).reference


@pytest.mark.parametrize("content", [b"", b"[]", b'{"manifests":[{"digest":"sha256:x"}]}', b"\xff"])
def test_an_index_that_is_none_is_refused(content: bytes) -> None:
    """With one clear error."""
    with pytest.raises(BadArchive):
        BundleIndex.parse(content)


def test_a_list_grows_with_each_bundle() -> None:
    """It says what a host has after all of them."""
    first = BundleList().with_blobs(["b", "a"])
    assert first.with_blobs(["c", "a"]).blobs == ("a", "b", "c")
    with pytest.raises(BadArchive):
        BundleList.parse(b"{")
