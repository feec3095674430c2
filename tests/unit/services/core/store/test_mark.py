"""Mark phase: what is referenced."""

from collections.abc import Mapping

import msgspec

from services.core.store.mark import (
    ManifestLinks,
    Mark,
    RepositoryState,
    RevisionState,
    TagState,
    manifest_links,
    mark_repository,
)

DAY = 86400.0
NOW = 100 * DAY
OLD = NOW - 10 * DAY


def digest(name: str) -> str:
    return name.ljust(64, "0")


A, B, CHILD, CONFIG, LAYER, OTHER = map(digest, ("a", "b", "c1", "cf", "1a", "0e"))
MANIFESTS = {
    A: ManifestLinks((CONFIG, LAYER), ()),
    B: ManifestLinks((OTHER,), ()),
    CHILD: ManifestLinks((LAYER,), ()),
}


def tag(current: str | None, *, damaged: bool = False, ended_at: float = OLD, **history: float) -> TagState:
    return TagState(current, damaged, {digest(name): moment for name, moment in history.items()}, ended_at)


def marked(
    *,
    tags: Mapping[str, TagState] | None = None,
    revisions: Mapping[str, RevisionState] | None = None,
    pins: tuple[str, ...] = (),
    manifests: Mapping[str, ManifestLinks] = MANIFESTS,
) -> Mark:
    mark = Mark()
    state = RepositoryState("web", tags or {}, revisions or {}, lambda: (LAYER, OTHER))
    mark_repository(mark, state, manifests.get, pins=pins, grace_seconds=DAY, now=NOW)
    return mark


def put(put_at: float | None = OLD, changed_at: float = OLD) -> RevisionState:
    return RevisionState(put_at, changed_at)


def test_a_tag_keeps_its_manifest_and_all_that_it_names() -> None:
    """Config and layers are needed with a link in the tag's repository, the manifest by its bytes."""
    mark = marked(tags={"1": tag(A, a=OLD)}, revisions={A: put()})
    assert mark.live == {A: [], CONFIG: ["web"], LAYER: ["web"]}
    assert mark.untagged == []


def test_a_manifest_without_a_tag_keeps_its_blobs_until_its_own_link_is_gone() -> None:
    """It is reported as untagged; what it names goes in a later collection."""
    mark = marked(revisions={B: put()})
    assert mark.untagged == [("web", B)]
    assert OTHER in mark.live


def test_a_manifest_put_a_moment_ago_is_referenced() -> None:
    """A push puts the manifest before anybody could name it."""
    assert marked(revisions={B: put(NOW - 60)}).untagged == []


def test_the_grace_counts_from_the_end_of_a_reference() -> None:
    """A tag that moved on a minute ago still keeps what it named, however long ago that was pushed."""
    moved = tag(A, b=OLD, a=NOW - 60)
    assert marked(tags={"1": moved}, revisions={A: put(), B: put()}).untagged == []
    long_ago = tag(A, b=OLD - DAY, a=OLD)
    assert marked(tags={"1": long_ago}, revisions={A: put(), B: put()}).untagged == [("web", B)]


def test_a_deleted_tag_keeps_its_manifest_for_the_grace() -> None:
    """The time of deletion is the folder's time."""
    assert marked(tags={"1": tag(None, b=OLD, ended_at=NOW - 60)}, revisions={B: put()}).untagged == []
    assert marked(tags={"1": tag(None, b=OLD)}, revisions={B: put()}).untagged == [("web", B)]


def test_a_manifest_deleted_a_moment_ago_keeps_its_blobs() -> None:
    """The empty folder of a revision says when its link went."""
    assert OTHER in marked(revisions={B: put(None, NOW - 60)}).live
    assert OTHER not in marked(revisions={B: put(None, OLD)}).live


def test_a_pin_keeps_a_manifest_by_its_own_digest_or_by_its_config() -> None:
    """Deployments know manifests, ranges know configs."""
    assert marked(revisions={A: put()}, pins=(A,)).untagged == []
    assert marked(revisions={A: put()}, pins=(CONFIG,)).untagged == []


def test_an_index_keeps_its_children_without_tags() -> None:
    """A platform's manifest has no tag of its own."""
    manifests = {**MANIFESTS, B: ManifestLinks((), (CHILD,))}
    mark = marked(tags={"1": tag(B, b=OLD)}, revisions={B: put(), CHILD: put()}, manifests=manifests)
    assert mark.untagged == []
    assert mark.live[LAYER] == ["web"]


def test_a_manifest_that_cannot_be_read_keeps_all_that_its_repository_links() -> None:
    """What it named cannot be known, so nothing of the repository is collected, and the damage is reported."""
    mark = marked(tags={"1": tag(A, a=OLD)}, revisions={A: put(), B: put()}, manifests={B: MANIFESTS[B]})
    assert mark.damaged == [("web", A)]
    assert {LAYER, OTHER, B} <= set(mark.live)
    assert mark.untagged == []


def test_an_empty_tag_link_keeps_all_that_the_tag_ever_named() -> None:
    """The registry truncates a link before it writes it, so an empty one says nothing."""
    mark = marked(tags={"1": tag(None, damaged=True, a=OLD, b=OLD)}, revisions={A: put(), B: put()})
    assert mark.broken_tags == [("web", "1")]
    assert mark.untagged == []


def test_a_tag_whose_revision_link_is_missing_is_reported() -> None:
    """Somebody deleted the manifest by digest, or a crash came between."""
    assert marked(tags={"1": tag(A, a=OLD)}, revisions={A: put(None)}).unlinked == [("web", A)]


def test_links_are_read_out_of_every_kind_of_manifest() -> None:
    """Told by the fields, since a media type may be any; Go's nil slices are empty."""
    image = {"config": {"digest": f"sha256:{CONFIG}", "size": 2}, "layers": [{"digest": f"sha256:{LAYER}", "size": 3}]}
    assert manifest_links(msgspec.json.encode(image)) == ManifestLinks((CONFIG, LAYER), (), (2, 3))
    index = {"manifests": [{"digest": f"sha256:{CHILD}"}]}
    assert manifest_links(msgspec.json.encode(index)) == ManifestLinks((), (CHILD,))
    assert manifest_links(b'{"config": null, "layers": null, "manifests": null}') == ManifestLinks((), ())
    assert manifest_links(b"no json") is None
