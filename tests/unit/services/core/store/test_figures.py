"""Storage figures of images, repositories and layers."""

from datetime import UTC, datetime

from services.core.store.figures import exclusive_blobs, repository_figures, store_details
from services.core.store.mark import ManifestLinks, Mark

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SIZES = {"m1": 1, "m2": 1, "m3": 1, "base": 100, "own1": 10, "own2": 20, "own3": 30}
MANIFESTS = {
    "m1": ManifestLinks(("base", "own1"), ()),
    "m2": ManifestLinks(("base", "own2"), ()),
    "m3": ManifestLinks(("base", "own3"), ()),
}


def mark(*, also: bool = False) -> Mark:
    tagged = {("web", "1"): "m1", ("web", "2"): "m2", ("db", "1"): "m3"}
    return Mark(tagged={**tagged, ("web", "latest"): "m1"} if also else tagged)


def test_a_repository_owns_what_no_other_one_needs() -> None:
    """Logical bytes count a shared blob once for each tag, stored ones once."""
    rows, logical, once = repository_figures(mark(), MANIFESTS.get, SIZES)
    web = next(row for row in rows if row.repository == "web")
    assert (web.logical_bytes, web.unique_bytes, web.shared_bytes) == (232, 32, 100)
    assert (logical, once) == (363, 163)


def test_an_image_owns_what_no_other_tag_needs() -> None:
    """A second tag of the same manifest shares all of it."""
    images = {(one.repository, one.tag): one for one in store_details(mark(), MANIFESTS.get, SIZES, NOW).images}
    assert images["web", "1"].unique_bytes == 11
    assert images["web", "1"].shared_bytes == 100
    images = {
        (one.repository, one.tag): one for one in store_details(mark(also=True), MANIFESTS.get, SIZES, NOW).images
    }
    assert images["web", "1"].unique_bytes == 0
    assert images["web", "1"].stored_bytes == 111


def test_sharing_saves_a_layers_size_for_each_reference_but_the_first() -> None:
    """Layers of one reference save nothing and are not listed."""
    (base,) = store_details(mark(), MANIFESTS.get, SIZES, NOW).layers
    assert (base.digest, base.references, base.saved_bytes) == ("sha256:base", 3, 200)


def test_deleting_tags_frees_what_only_they_need() -> None:
    """A sibling tag keeps everything; all tags of a manifest together free it."""
    assert exclusive_blobs(mark(), MANIFESTS.get, "m1", [("web", "1")]) == {"m1", "own1"}
    assert exclusive_blobs(mark(also=True), MANIFESTS.get, "m1", [("web", "1")]) == frozenset()
    both = [("web", "1"), ("web", "latest")]
    assert exclusive_blobs(mark(also=True), MANIFESTS.get, "m1", both) == {"m1", "own1"}
