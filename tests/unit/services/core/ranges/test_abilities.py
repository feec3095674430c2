"""What an engine can take."""

import pytest

from services.core.images.image import EngineInfo, Store
from services.core.ranges.abilities import Ability, abilities, layout, left_out, major


def info(version: str, store: Store) -> EngineInfo:
    return EngineInfo(
        engine_id="e", version=version, api_version="1.41", store=store, platform="linux/amd64", root="/var/lib/docker"
    )


@pytest.mark.parametrize(
    ("version", "store", "expected"),
    [
        ("20.10.24+dfsg1", "classic", ("thin_docker",)),
        ("23.0.0", "classic", ("zstd", "thin_docker")),
        ("26.1.5+dfsg1", "classic", ("zstd", "thin_docker")),
        ("28.5.2", "containerd", ("zstd", "thin_oci")),
        ("dev", "classic", ("thin_docker",)),
    ],
)
def test_version_and_store_tell_what_an_engine_takes(version: str, store: Store, expected: tuple[Ability, ...]) -> None:
    """zstd since 23; the thin layout is the store's own; an unknown version is taken for an old one."""
    assert abilities(info(version, store)) == expected


@pytest.mark.parametrize(("version", "number"), [("20.10.24", 20), ("v28.5", 28), (" 29-rc1", 29), ("", 0), ("x", 0)])
def test_the_major_version(version: str, number: int) -> None:
    """The first number, whatever follows."""
    assert major(version) == number


def test_each_store_has_its_layout() -> None:
    """A classic store takes docker's, a containerd store OCI's."""
    assert (layout("classic"), layout("containerd")) == ("docker", "oci")


def test_what_may_be_left_out_depends_on_the_store() -> None:
    """A classic store knows chains, a containerd store single blobs."""
    present = [("a", "x"), ("c",)]
    assert left_out("classic", ("a", "b", "c"), present) == ("a",)
    assert left_out("containerd", ("a", "b", "c", "a"), present) == ("a", "c")
