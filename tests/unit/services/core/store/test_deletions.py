"""Deletions that wait for a collection."""

from services.core.store.deletions import BlobFate, PendingDeletion, settled


def pending(name: str, at: float, **blobs: int) -> PendingDeletion:
    return PendingDeletion(id=name, reference=name, manifest_digest="m", deleted_at=at, blobs=blobs)


def test_a_deletion_is_over_when_nothing_of_it_is_there() -> None:
    """It tells the bytes that were freed; a blob that a tag needs again was not."""
    fates: dict[str, BlobFate] = {"a": "freed", "b": "needed", "c": "freed"}
    over, changed = settled([pending("one", 1.0, a=10, b=20, c=5)], fates.__getitem__)
    assert [(one.id, one.freed_bytes) for one in over] == [("one", 15)]
    assert changed == []


def test_a_deletion_waits_for_what_is_still_there() -> None:
    """What was freed by then is noted, so that it is told in the end."""
    fates: dict[str, BlobFate] = {"a": "freed", "b": "there"}
    over, (waiting,) = settled([pending("one", 1.0, a=10, b=20)], fates.__getitem__)
    assert over == []
    assert (waiting.blobs, waiting.freed_bytes) == ({"b": 20}, 10)
    fates["b"] = "freed"
    (ended,), _ = settled([waiting], fates.__getitem__)
    assert ended.freed_bytes == 30


def test_a_blob_counts_for_the_latest_deletion_alone() -> None:
    """It was deleted, pushed again and deleted again before any collection: its bytes are told once."""
    over, _ = settled([pending("old", 1.0, a=10), pending("new", 2.0, a=10)], lambda digest: "freed")
    assert {one.id: one.freed_bytes for one in over} == {"old": 0, "new": 10}


def test_nothing_changes_while_everything_is_there() -> None:
    """No record is written for a collection that freed nothing of it."""
    assert settled([pending("one", 1.0, a=10)], lambda digest: "there") == ([], [])


def test_a_deletion_that_frees_nothing_is_over_at_the_next_collection() -> None:
    """Another tag had all of its content."""
    over, _ = settled([pending("one", 1.0)], lambda digest: "there")
    assert [one.freed_bytes for one in over] == [0]
