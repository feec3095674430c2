"""Who gets the next free slot."""

from __future__ import annotations

from services.core.deployments.admission import Ticket, choose, places

GIB = 1024**3


def ticket(
    deployment_id: str, index: int = 0, *, priority: int = 5, size_bytes: int = 100, range_id: str = ""
) -> Ticket:
    """Of a range of its own, unless one is given."""
    return Ticket(deployment_id, index, priority, size_bytes, range_id or f"range-of-{deployment_id}")


def chosen(
    queue: list[Ticket], active: list[Ticket] | None = None, *, slots: int = 2, per_range: int = 99
) -> list[str]:
    found = choose(queue, active or [], slots=slots, large_bytes=2 * GIB, per_range=per_range)
    return [f"{one.deployment_id}{one.index}" for one in found]


def test_no_more_than_there_are_slots() -> None:
    """Those at work count."""
    queue = [ticket("a", n) for n in range(5)]
    assert len(chosen(queue)) == 2
    assert len(chosen(queue, [ticket("b")])) == 1
    assert chosen(queue, [ticket("b"), ticket("c")]) == []


def test_deployments_take_turns() -> None:
    """One with many images does not hold up those behind it."""
    queue = [*(ticket("a", n) for n in range(9)), ticket("b"), ticket("c")]
    assert chosen(queue, slots=3) == ["a0", "b0", "c0"]
    assert chosen(queue, [ticket("a", 9)], slots=3) == ["b0", "c0"]


def test_every_range_has_its_turn() -> None:
    """Many deployments of one range do not hold up those of others; those that wait for it share its turns."""
    of_one = [ticket(one, range_id="r1") for one in "abcd"]
    assert chosen([*of_one, ticket("x"), ticket("y")], slots=3) == ["a0", "x0", "y0"]
    assert chosen([of_one[2], ticket("x")], of_one[:2], slots=3) == ["x0"]
    assert chosen([*of_one, ticket("x")], slots=4) == ["a0", "x0", "b0", "c0"]


def test_a_range_alone_takes_what_is_free_and_no_more_than_it_works_at() -> None:
    """With nobody else waiting it may have every slot, up to what its agent does at a time."""
    queue = [ticket("a", n) for n in range(5)]
    assert chosen(queue, slots=4) == ["a0", "a1", "a2", "a3"]
    assert chosen(queue, slots=4, per_range=3) == ["a0", "a1", "a2"]
    other = ticket("b", range_id="range-of-a")
    assert chosen([*queue[2:], other, ticket("x")], queue[:2], slots=6, per_range=3) == ["x0", "b0"]


def test_the_longest_wait_comes_first_and_priority_before_it() -> None:
    """Among equals the order of the queue decides; a higher priority overtakes."""
    assert chosen([ticket("a"), ticket("b"), ticket("c")]) == ["a0", "b0"]
    assert chosen([ticket("a"), ticket("b"), ticket("c", priority=9)]) == ["c0", "a0"]


def test_small_images_are_not_stuck_behind_large_ones() -> None:
    """Large images leave one slot to smaller ones; with one slot in all, everybody's turn comes."""
    large = [ticket(one, size_bytes=20 * GIB) for one in "ab"]
    assert chosen([*large, ticket("c")], slots=2) == ["a0", "c0"]
    assert chosen([large[1], ticket("c")], [large[0]], slots=2) == ["c0"]
    assert chosen([large[1]], [large[0]], slots=2) == []
    assert chosen(large, slots=1) == ["a0"]


def test_within_a_deployment_the_smaller_image_comes_first() -> None:
    """So that something is there soon."""
    assert chosen([ticket("a", 0, size_bytes=900), ticket("a", 1, size_bytes=5)], slots=1) == ["a1"]


def test_tickets_are_words() -> None:
    """A place in the queue is readable and can be read back."""
    one = ticket("d.1-x", 3, size_bytes=7, range_id="r1")
    assert str(one) == "d.1-x 3 5 7 r1"
    assert Ticket.parse(str(one)) == one


def test_each_host_has_slots_and_a_queue_of_its_own() -> None:
    """One that is full holds up no other, and nobody waits behind what goes to another host."""
    queue = [Ticket(name, 0, 5, 100, f"r-{name}", host) for name, host in (("a", "x"), ("b", "x"), ("c", "y"))]
    busy = [Ticket("d", 0, 5, 100, "r-d", "x")]
    assert [one.deployment_id for one in choose(queue, busy, slots=1, large_bytes=GIB, per_range=9)] == ["c"]
    assert [place for _, place in sorted((t.deployment_id, p) for t, p in places(queue, busy).items())] == [1, 2, 1]


def test_a_ticket_of_an_unknown_host_is_written_as_before() -> None:
    """Older replicas read it."""
    assert str(ticket("a", range_id="r")) == "a 0 5 100 r"
    for one in (ticket("a"), Ticket("a", 1, 5, 7, "r", "host-2")):
        assert Ticket.parse(str(one)) == one
