"""Manifests and configs as registries and archives hold them."""

import pytest

from services.core.images.manifests import ImageConfig, Manifest
from services.errors import BadInput

CONFIG = b'{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:aa","size":2}'


@pytest.mark.parametrize("rest", [b"", b',"layers":null', b',"layers":[]', b',"layers":null,"annotations":null'])
def test_a_manifest_without_layers(rest: bytes) -> None:
    """Go writes an empty list as null; BuildKit does for `FROM scratch`."""
    manifest = Manifest.parse(b'{"schemaVersion":2,"config":' + CONFIG + rest + b"}")
    assert manifest.body.layers == ()
    assert manifest.body.config.digest == "sha256:aa"


@pytest.mark.parametrize(
    "rest", [b"", b',"rootfs":null', b',"rootfs":{"type":"layers","diff_ids":null}', b',"rootfs":{"type":null}']
)
def test_a_config_without_layers(rest: bytes) -> None:
    """The same for diff IDs, and for a config that has no root file system."""
    config = ImageConfig.parse(b'{"architecture":"amd64","os":"linux"' + rest + b',"variant":null,"history":null}')
    assert (config.rootfs.diff_ids, config.platform) == ((), "linux/amd64")


@pytest.mark.parametrize("content", [b"null", b"[]", b"{}", b"<html>", b'{"schemaVersion":2,"config":null}'])
def test_what_is_neither_is_refused(content: bytes) -> None:
    """One kind of error, whatever came instead."""
    with pytest.raises(BadInput, match="no image manifest"):
        Manifest.parse(content)
    with pytest.raises(BadInput, match="no image config"):
        ImageConfig.parse(content)
