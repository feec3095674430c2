"""The documents of image archives."""

import json

import msgspec
import pytest

from services.core.archives.archive_documents import (
    DockerImage,
    Index,
    Pointer,
    docker_images,
    index_of,
    write_index,
    write_manifest,
)


@pytest.mark.parametrize("content", [b"null", b"[]"])
def test_no_list_is_an_empty_one(content: bytes) -> None:
    """As Go writes an empty slice."""
    assert docker_images(content) == []


def test_null_members_are_empty() -> None:
    """Of rows, of indexes, of descriptors."""
    row = b'[{"Config":"c.json","RepoTags":null,"Layers":null,"LayerSources":null}]'
    assert docker_images(row) == [DockerImage(config="c.json")]
    assert index_of(b'{"manifests":null}') == index_of(b"{}") == Index()
    pointer = b'{"manifests":[{"digest":"sha256:a","annotations":null,"platform":null,"urls":null,"size":null}]}'
    assert index_of(pointer).manifests == (Pointer(digest="sha256:a"),)


@pytest.mark.parametrize("content", [b"{}", b"[{}]", b'[{"Config":5}]', b"\xff", b'[{"Config":"\xff"}]'])
def test_what_does_not_fit_is_one_kind_of_error(content: bytes) -> None:
    """Also what is not UTF-8."""
    with pytest.raises(msgspec.DecodeError):
        docker_images(content)


def test_what_is_written_is_read_again() -> None:
    """By name, for both kinds of store; what a descriptor said beside stays."""
    images = [DockerImage(config="c.json", repo_tags=("web:1",), layers=("", "a.tar"))]
    assert docker_images(write_manifest(images)) == images
    pointer = Pointer(digest="sha256:a", media_type="m", size=5, annotations={"note": "x"})
    written = write_index([(pointer, "docker.io/library/web:1")])
    (read,) = index_of(written).manifests
    assert (read.name, read.annotations["note"], read.size) == ("docker.io/library/web:1", "x", 5)
    assert json.loads(written)["schemaVersion"] == 2
