"""Names of mounted layers, and which images can be mounted."""

from __future__ import annotations

import msgspec

from events.messages import Layer
from services.core.mounts.layer_mounts import LAYERS_LIMIT, diff_ids_of, layer_mounts, unmountable

ONE, TWO = (
    Layer(digest=f"sha256:{digit * 64}", diff_id=f"sha256:{digit * 64}", size_bytes=1024) for digit in ("a", "b")
)

PACKED = Layer(digest=f"sha256:{'c' * 64}", diff_id=ONE.diff_id, size_bytes=9, codec="gzip")


def test_a_repeated_layer_has_a_folder_for_each_time() -> None:
    """An overlay refuses one file system twice."""
    assert [mount.name for mount in layer_mounts([ONE, TWO, ONE])] == ["a" * 64, "b" * 64, f"{'a' * 64}.2"]


def test_a_folder_knows_what_the_engine_calls_the_layers_down_to_it() -> None:
    """The base is called by its diff ID."""
    first, second = layer_mounts([ONE, TWO])
    assert first.chain_id == ONE.diff_id
    assert second.chain_id not in (ONE.diff_id, TWO.diff_id)


def test_each_blob_of_a_layer_has_a_folder() -> None:
    """A range may have images with the layer raw and compressed: its engine keeps both blobs."""
    again = msgspec.structs.replace(PACKED, digest=f"sha256:{'d' * 64}")
    names = [f"{'a' * 64}", f"{'a' * 64}.{'c' * 64}", f"{'a' * 64}.{'d' * 64}", f"{'a' * 64}.{'c' * 64}.2"]
    found = [layer_mounts(layers)[-1].name for layers in ([ONE], [PACKED], [again], [PACKED, PACKED])]
    assert found == names
    assert diff_ids_of(names) == (ONE.diff_id,)


def test_compressed_layers_can_be_mounted() -> None:
    """Not more than an overlay takes, not none at all, and none whose blob cannot be what its codec says."""
    assert unmountable([ONE, TWO, PACKED]) is None
    assert "no layers" in str(unmountable([]))
    assert str(LAYERS_LIMIT) in str(unmountable([ONE] * (LAYERS_LIMIT + 1)))
    for wrong in ({"digest": PACKED.digest}, {"codec": "gzip"}):
        assert "cannot be" in str(unmountable([msgspec.structs.replace(ONE, **wrong)]))
