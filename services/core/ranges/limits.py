"""Rate limits and budgets of one range at its gateway: pure accounting, the time is an argument.

Two kinds of limits. A **rate** (requests, bytes) slows: the gateway waits before it reads the range's next request, and
a range that keeps asking faster than its rate is cut off for a while. A **budget** (messages to the outbox, lists of
images, owners, progress) refuses: what is over it has to wait until the budget has grown again, progress is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

import msgspec

#: So many owners of leases are remembered for each range: a worker's every start is a new one.
_OWNERS = 1000
Limit = Literal["rate", "bytes", "messages", "lists", "owners", "progress", "violations", "outbox"]


class RangeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Measured on an honest agent: idle 4 requests a second, with eight transfers under way 30; a deployed image costs
    one to three messages of about 700 bytes, an image list 1 KiB for each image of ten layers."""

    requests_per_second: float = 100.0
    requests_burst: float = 400.0
    bytes_per_second: float = 128 * 1024.0
    bytes_burst: float = 2 * 1024 * 1024.0
    messages_per_hour: float = 720.0
    messages_burst: float = 1000.0
    lists_per_hour: float = 120.0
    lists_burst: float = 10.0
    owners_per_hour: float = 240.0
    owners_burst: float = 100.0
    progress_per_second: float = 20.0
    progress_burst: float = 200.0
    violations_per_minute: float = 6.0
    violations_burst: float = 5.0
    slow_seconds: float = 2.0
    """One request is slowed by so much at most."""
    patience_seconds: float = 15.0
    """A range that is slowed for so long without a pause is cut off."""
    closed_seconds: float = 20.0
    """How long a range that was cut off stays out."""


@dataclass(slots=True)
class Bucket:
    """A token bucket. `level` is what may be spent now; below zero it is a debt."""

    per_second: float
    burst: float
    level: float = field(init=False)
    at: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.level = self.burst

    def _grow(self, now: float) -> None:
        if self.at is not None:
            self.level = min(self.burst, self.level + max(0.0, now - self.at) * self.per_second)
        self.at = now

    def spend(self, amount: float, now: float) -> float:
        """Spend in any case. Returns in how many seconds the debt is paid (0: there is none)."""
        self._grow(now)
        self.level -= amount
        return max(0.0, -self.level / self.per_second)

    def try_spend(self, amount: float, now: float) -> float:
        """Spend if there is enough. Returns in how many seconds there would be (0: spent)."""
        self._grow(now)
        if amount <= self.level:
            self.level -= amount
            return 0.0
        return max(0.001, (min(amount, self.burst) - self.level) / self.per_second)


@dataclass(frozen=True, slots=True)
class Pace:
    """What the gateway does before it reads the next request: wait, or (`cut`) end the range's connections."""

    wait_seconds: float = 0.0
    over: Limit | None = None
    cut: bool = False


class RangeAccount:
    """The accounts of one range, over all its connections. Times are monotonic seconds."""

    def __init__(self, limits: RangeLimits) -> None:
        self._limits = limits
        self._requests = Bucket(limits.requests_per_second, limits.requests_burst)
        self._bytes = Bucket(limits.bytes_per_second, limits.bytes_burst)
        self._messages = Bucket(limits.messages_per_hour / 3600, limits.messages_burst)
        self._lists = Bucket(limits.lists_per_hour / 3600, limits.lists_burst)
        self._fresh = Bucket(limits.owners_per_hour / 3600, limits.owners_burst)
        self._progress = Bucket(limits.progress_per_second, limits.progress_burst)
        self._violations = Bucket(limits.violations_per_minute / 60, limits.violations_burst)
        self._owners: OrderedDict[str, None] = OrderedDict()
        self._slowed_since: float | None = None
        self._slowed_at = float("-inf")
        self.closed_until = float("-inf")

    def request(self, size_bytes: int, now: float) -> Pace:
        """Charge a request of so many bytes, before it is read."""
        waits: dict[Limit, float] = {
            "rate": self._requests.spend(1, now),
            "bytes": self._bytes.spend(size_bytes, now),
        }
        over = max(waits, key=lambda name: waits[name])
        if waits[over] <= 0.0:
            if now - self._slowed_at > self._limits.slow_seconds:
                self._slowed_since = None
            return Pace()
        if self._slowed_since is None or now - self._slowed_at > 2 * self._limits.slow_seconds:
            self._slowed_since = now
        self._slowed_at = now
        if now - self._slowed_since > self._limits.patience_seconds:
            return self._close(over, now)
        return Pace(min(waits[over], self._limits.slow_seconds), over)

    def violation(self, now: float) -> Pace:
        """Charge a violation: something that no agent of ours sends."""
        return self._close("violations", now) if self._violations.try_spend(1, now) else Pace()

    def messages(self, amount: int, now: float) -> float:
        """Seconds until that many messages may go to the outbox (0: now, and they are counted)."""
        return self._messages.try_spend(amount, now) if amount else 0.0

    def listing(self, now: float) -> float:
        """Seconds until a list of all images may go to the outbox (0: now)."""
        return self._lists.try_spend(1, now)

    def progress(self, amount: int, now: float) -> bool:
        """Whether so much progress may be published now."""
        return not amount or self._progress.try_spend(amount, now) <= 0.0

    def owner(self, name: str, now: float) -> bool:
        """Whether this owner may hold leases: a known one may, a new one within the budget."""
        if name not in self._owners:
            if self._fresh.try_spend(1, now):
                return False
            self._owners[name] = None
            if len(self._owners) > _OWNERS:
                self._owners.popitem(last=False)
        self._owners.move_to_end(name)
        return True

    def _close(self, over: Limit, now: float) -> Pace:
        self.closed_until = now + self._limits.closed_seconds
        self._slowed_since = None
        return Pace(self._limits.closed_seconds, over, cut=True)
