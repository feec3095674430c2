"""The order in which a worker reads its streams."""

from __future__ import annotations

from events.worker.stream_rotation import RECOVERED_AT_ONCE, StreamRotation


def test_each_read_begins_with_another_stream() -> None:
    """A busy stream starves none, and a stream named twice is read once."""
    rotation = StreamRotation(lambda: ["a", "b", "a", "c"])
    assert [rotation.rotated()[0] for _ in range(6)] == ["b", "c", "a", "b", "c", "a"]
    assert sorted(rotation.rotated()) == list(rotation.all()) == ["a", "b", "c"]
    assert StreamRotation(list).rotated() == ()


def test_of_many_streams_each_is_recovered_in_its_turn() -> None:
    """One recovery looks through a bounded number."""
    many = [str(number) for number in range(RECOVERED_AT_ONCE + 100)]
    rotation = StreamRotation(lambda: many)
    first, second = rotation.to_recover(), rotation.to_recover()
    assert len(first) == len(second) == RECOVERED_AT_ONCE
    assert set(first + second) == set(many)
    assert StreamRotation(lambda: many[:3]).to_recover() == tuple(many[:3])


def test_a_tuple_that_is_the_same_one_is_not_looked_through_again() -> None:
    """Another one is, and so is a list, which may have changed."""
    streams: list[tuple[str, ...]] = [("a", "a", "b")]
    rotation = StreamRotation(lambda: streams[0])
    first = rotation.all()
    assert first == ("a", "b")
    assert rotation.all() is first
    streams[0] = ("a", "c")
    assert rotation.all() == ("a", "c")
    changing = ["a"]
    listed = StreamRotation(lambda: changing)
    assert listed.all() == ("a",)
    changing.append("b")
    assert listed.all() == ("a", "b")
