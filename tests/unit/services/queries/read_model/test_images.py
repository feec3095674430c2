"""`services.queries.read_model.images`, compared with counting everything anew."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from services.core.images.read_model import ImageLayers, RegistryEntry
from services.queries.read_model.images import RegistryImages
from services.queries.read_model.listing import ListQuery

AT = datetime(2026, 1, 31, tzinfo=UTC)
SIZES = {f"sha256:{digit * 64}": 10**place for place, digit in enumerate("abcdef")}
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["r/one:1", "r/one:2", "r/two:1", "r/two:2"]),
        st.none() | st.lists(st.sampled_from(sorted(SIZES)), max_size=4),
    ),
    max_size=12,
)


def _put(images: RegistryImages, name: str, layers: list[str], number: int) -> None:
    repository, _, tag = name.partition(":")
    digest = f"sha256:{number:064}"
    entry = RegistryEntry(
        reference=name,
        repository=repository,
        tag=tag,
        manifest_digest=digest,
        image_id=digest,
        layers=len(layers),
        size_bytes=sum(SIZES[layer] for layer in layers),
        pushed_at=AT,
    )
    known = ImageLayers(reference=name, manifest_digest=digest, layers=tuple((layer, SIZES[layer]) for layer in layers))
    images.put(entry, known)


@given(CHANGES)
def test_bytes_that_only_one_image_needs_are_known_after_any_changes(
    changes: list[tuple[str, list[str] | None]],
) -> None:
    """Of each tag, of each repository, and of the whole registry."""
    images, expected = RegistryImages(), dict[str, list[str]]()
    for number, (name, layers) in enumerate(changes):
        if layers is None:
            images.remove(name)
            expected.pop(name, None)
        else:
            _put(images, name, layers, number)
            expected[name] = layers
    users = Counter(layer for layers in expected.values() for layer in set(layers))
    places = {layer: {name.partition(":")[0] for name in expected if layer in expected[name]} for layer in users}
    for name, layers in expected.items():
        alone = sum(SIZES[layer] for layer in set(layers) if users[layer] == 1)
        assert images.table.rows[name].unique_bytes == alone
    assert set(images.table.rows) == set(expected) == images.names()
    totals = images.totals()
    assert totals.stored_bytes == sum(SIZES[layer] for layer in users)
    assert totals.logical_bytes == sum(SIZES[layer] for layers in expected.values() for layer in layers)
    for row in images.repositories().page(ListQuery()).items:
        own = {layer for layer in users if row.repository in places[layer]}
        assert row.stored_bytes == sum(SIZES[layer] for layer in own)
        assert row.unique_bytes == sum(SIZES[layer] for layer in own if len(places[layer]) == 1)
        assert row.shared_bytes == row.stored_bytes - row.unique_bytes


def test_ranges_that_have_the_content_are_counted() -> None:
    """By its image id, under whatever name; the rows of its tags change."""
    images = RegistryImages()
    _put(images, "r/one:1", [], 1)
    content = f"sha256:{1:064}"
    assert images.held("range-1", (), {content}) == {"r/one:1"}
    assert images.held("range-2", (), {content}) == {"r/one:1"}
    assert images.held("range-1", {content}, ()) == {"r/one:1"}
    details = images.details("r/one:1")
    assert details is not None
    assert (details.ranges, details.held_by) == (1, ("range-2",))
    assert images.details("r/one:2") is None
