"""`services.core.ranges.limits`: rates slow and then cut off, budgets refuse, and both recover by themselves."""

from __future__ import annotations

from services.core.ranges.limits import Bucket, RangeAccount, RangeLimits

LIMITS = RangeLimits(
    requests_per_second=10.0,
    requests_burst=10.0,
    bytes_per_second=1000.0,
    bytes_burst=1000.0,
    patience_seconds=5.0,
    slow_seconds=2.0,
    closed_seconds=20.0,
    owners_burst=2.0,
    owners_per_hour=1.0,
    violations_burst=2.0,
)


def test_a_bucket_holds_no_more_than_its_burst() -> None:
    """However long nobody spent."""
    bucket = Bucket(per_second=1.0, burst=5.0)
    assert bucket.try_spend(5.0, 1000.0) == 0.0
    assert bucket.try_spend(1.0, 1000.0) > 0.0
    assert bucket.try_spend(5.0, 9000.0) == 0.0
    assert bucket.try_spend(1.0, 9000.0) > 0.0


def test_a_debt_is_paid_by_time() -> None:
    """What was spent beyond the burst is waited for, at the rate."""
    bucket = Bucket(per_second=2.0, burst=4.0)
    assert bucket.spend(6.0, 0.0) == 1.0
    assert bucket.spend(0.0, 1.0) == 0.0


def test_a_clock_that_stands_still_gives_nothing() -> None:
    """Nor does one that goes back."""
    bucket = Bucket(per_second=1.0, burst=1.0)
    assert bucket.try_spend(1.0, 50.0) == 0.0
    assert bucket.try_spend(1.0, 50.0) > 0.0
    assert bucket.try_spend(1.0, 49.0) > 0.0


def test_within_the_rate_nothing_happens() -> None:
    """An honest agent is never slowed."""
    account = RangeAccount(LIMITS)
    assert all(account.request(50, second / 9.0).over is None for second in range(1000))


def test_too_fast_is_slowed_then_cut_off_then_let_in_again() -> None:
    """The waits are short at first; whoever goes on without a pause is out for a while, and starts anew after it."""
    account = RangeAccount(LIMITS)
    now, slowed = 0.0, 0
    while not (pace := account.request(1, now)).cut:
        slowed += pace.wait_seconds > 0.0
        assert pace.wait_seconds <= LIMITS.slow_seconds
        now += 0.01
    assert pace.over == "rate"
    assert slowed > 100
    assert LIMITS.patience_seconds < now < 2 * LIMITS.patience_seconds
    assert account.closed_until == now + LIMITS.closed_seconds
    assert account.request(1, account.closed_until + 60.0).over is None


def test_bytes_are_counted_as_well() -> None:
    """Few requests that are large meet a limit of their own."""
    account = RangeAccount(LIMITS)
    assert account.request(900, 0.0).over is None
    assert account.request(900, 0.0).over == "bytes"


def test_a_pause_ends_the_patience_that_was_used() -> None:
    """Only whoever is too fast all the time is cut off."""
    account = RangeAccount(LIMITS)
    for burst in range(50):
        for number in range(12):
            assert not account.request(1, burst * 10.0 + number / 1000).cut


def test_a_few_violations_are_forgiven() -> None:
    """A broken connection may look like one; many are none."""
    account = RangeAccount(LIMITS)
    assert [account.violation(0.0).cut for _ in range(3)] == [False, False, True]
    assert account.closed_until == LIMITS.closed_seconds


def test_owners_are_few_and_remembered() -> None:
    """A worker that keeps its name is never refused; new names are rationed."""
    account = RangeAccount(LIMITS)
    assert account.owner("a", 0.0)
    assert account.owner("b", 0.0)
    assert not account.owner("c", 0.0)
    assert account.owner("a", 0.0)
    assert account.owner("c", 3600.0)


def test_what_is_over_a_budget_is_not_counted() -> None:
    """A refused message costs nothing, so that the range can say it later."""
    account = RangeAccount(RangeLimits(messages_burst=2.0, messages_per_hour=3600.0))
    assert account.messages(2, 0.0) == 0.0
    assert account.messages(1, 0.0) > 0.0
    assert account.messages(1, 0.5) > 0.0
    assert account.messages(1, 1.1) == 0.0
