"""The poll interval of an idle worker."""

from __future__ import annotations

from events.worker.poll_interval import IDLE_POLL_SECONDS, POLL_SECONDS, TEND_SECONDS, PollInterval


def test_each_wait_in_which_nothing_came_is_longer_up_to_a_limit() -> None:
    """So an idle worker costs next to nothing."""
    poll = PollInterval()
    seen = []
    for _ in range(12):
        seen.append(poll.seconds)
        poll.grow()
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (POLL_SECONDS, IDLE_POLL_SECONDS)
    assert poll.tend_seconds == 2 * IDLE_POLL_SECONDS
    patient = PollInterval(6.0)
    for _ in range(12):
        patient.grow()
    assert (patient.seconds, patient.tend_seconds) == (6.0, 12.0)


def test_what_happens_makes_the_next_wait_short_again() -> None:
    """A busy worker looks as often as before."""
    poll = PollInterval()
    for _ in range(12):
        poll.grow()
    poll.reset()
    assert (poll.seconds, poll.tend_seconds) == (POLL_SECONDS, TEND_SECONDS)


def test_a_deferred_entry_ends_the_wait_when_it_is_due() -> None:
    """And one that is due but could not be had is no reason to look without a pause."""
    poll = PollInterval()
    poll.due_seconds = 0.05
    assert poll.seconds == 0.05
    assert poll.patience_seconds == 0.05
    poll.due_seconds = 60.0
    assert poll.seconds == poll.longest == POLL_SECONDS
    assert poll.patience_seconds > POLL_SECONDS, (
        "a read that ends by itself is awaited: given up it costs a second look"
    )
    poll.due_seconds = 0.0
    assert poll.seconds == POLL_SECONDS
