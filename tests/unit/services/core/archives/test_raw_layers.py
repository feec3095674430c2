"""Which layers of an image a containerd store has uncompressed."""

from __future__ import annotations

import json

import pytest

from events.messages import Layer
from services.core.archives.layout import RAW_LAYERS, plan_archive
from services.core.archives.raw_layers import passed_over, raw_of, read
from services.core.images.image import EngineImage

A, B, C, D = (f"sha256:{digit * 64}" for digit in "abcd")


def image(*diff_ids: str, raw: tuple[str, ...] = ()) -> EngineImage:
    """On a containerd store."""
    return EngineImage(local_id="sha256:" + "1" * 64, image_id=None, diff_ids=diff_ids, raw_layers=raw)


def packed(*diff_ids: str) -> tuple[Layer, ...]:
    """The layers as a registry has them that keeps them compressed."""
    return tuple(Layer(digest=diff_id[:-1] + "0", diff_id=diff_id, size_bytes=1, codec="gzip") for diff_id in diff_ids)


def test_what_an_archive_writes_is_read_back() -> None:
    """Held layers and those named by their diff ID are raw, one named as the registry's blob is not."""
    plan = plan_archive(
        layout="oci",
        reference="docker.io/a/b:1",
        familiar="a/b:1",
        config=b"{}",
        diff_ids=(A, B, C),
        held={C},
        sizes={A: 1, B: None, C: 1},
        blobs={layer.diff_id: layer for layer in packed(B, C)},
    )
    [described] = json.loads(plan.entries[1].content or b"")["manifests"]
    assert read(described["annotations"], (A, B, C)) == (A, C)


@pytest.mark.parametrize(
    "annotations",
    [None, [], {}, {RAW_LAYERS: 1}, {RAW_LAYERS: ""}, {RAW_LAYERS: "0,"}, {RAW_LAYERS: "-1"}, {RAW_LAYERS: "2"}],
)
def test_what_tells_nothing_of_this_image_counts_for_nothing(annotations: object) -> None:
    """Anybody may write annotations."""
    assert read(annotations, (A, B)) == ()


def test_layers_are_raw_where_some_image_has_them_so() -> None:
    """Of those that are wanted, each once."""
    assert raw_of((A, B, A), [image(A, C, raw=(A, C)), image(B)]) == (A,)


def test_a_pull_passes_over_what_is_unpacked_from_another_blob() -> None:
    """The registry has `B` compressed, the engine raw alone: the pull would not fetch it."""
    there = [image(A), image(A, B, raw=(B,))]
    assert passed_over((A, B, C), packed(A, B, C), there) == (B,)


def test_a_pull_fetches_what_is_not_unpacked_in_that_place() -> None:
    """The same layer on another base, one that is there in both forms, and one that the registry has raw."""
    assert passed_over((A, B), packed(A, B), [image(D, B, raw=(B,))]) == ()
    assert passed_over((A, B), packed(A, B), [image(A, B, raw=(A, B)), image(A, B)]) == ()
    raw = (Layer(digest=A, diff_id=A, size_bytes=1), Layer(digest=B, diff_id=B, size_bytes=1))
    assert passed_over((A, B), raw, [image(A, B, raw=(A, B))]) == ()
