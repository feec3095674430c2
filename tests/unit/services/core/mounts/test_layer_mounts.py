"""Names of mounted layers, and which images can be mounted."""

from __future__ import annotations

from events.messages import Layer
from services.core.mounts.layer_mounts import LAYERS_LIMIT, layer_mounts, unmountable

ONE, TWO = (
    Layer(digest=f"sha256:{digit * 64}", diff_id=f"sha256:{digit * 64}", size_bytes=1024) for digit in ("a", "b")
)


def test_a_repeated_layer_has_a_folder_for_each_time() -> None:
    """An overlay refuses one file system twice."""
    assert [mount.name for mount in layer_mounts([ONE, TWO, ONE])] == ["a" * 64, "b" * 64, f"{'a' * 64}.2"]


def test_a_folder_knows_what_the_engine_calls_the_layers_down_to_it() -> None:
    """The base is called by its diff ID."""
    first, second = layer_mounts([ONE, TWO])
    assert first.chain_id == ONE.diff_id
    assert second.chain_id not in (ONE.diff_id, TWO.diff_id)


def test_only_plain_layers_can_be_mounted() -> None:
    """Not packed ones, not more than an overlay takes, and not none at all."""
    packed = Layer(digest=TWO.digest, diff_id=ONE.diff_id, size_bytes=1, codec="gzip")
    assert unmountable([ONE, TWO]) is None
    assert "gzip" in str(unmountable([ONE, packed]))
    assert "no layers" in str(unmountable([]))
    assert str(LAYERS_LIMIT) in str(unmountable([ONE] * (LAYERS_LIMIT + 1)))
