"""The streams' names under a key prefix, and who reads them.

With the prefix `{cyroid}` every key lands in one Redis Cluster slot, which the bus's scripts need there.
All helper keys that the bus keeps for a stream begin with that stream's own name: an ACL pattern such as
`cyroid:range:7:*` covers everything that the agent of range 7 needs, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Streams:
    """Names of keys. `Streams("cyroid").images == "cyroid:images"`."""

    prefix: str = "cyroid"

    @property
    def images(self) -> str:
        """Images appeared, are to be pushed, were pushed. Groups: `registry-pusher`, `deployer`, `tracker`."""
        return f"{self.prefix}:images"

    @property
    def deployments(self) -> str:
        """Deployments asked for and ended. Groups: `deployer`, `tracker`."""
        return f"{self.prefix}:deployments"

    @property
    def deployer(self) -> str:
        """The deployer's timers and nudges to itself, which are of no use to people. Group: `deployer`."""
        return f"{self.prefix}:deployer"

    @property
    def progress(self) -> str:
        """How far transfers are. No group; capped."""
        return f"{self.prefix}:progress"

    @property
    def dead(self) -> str:
        """Entries that a consumer gave up on. Read by people."""
        return f"{self.prefix}:dead"

    def inbox(self, range_id: str) -> str:
        """Commands to the agent of one range. Group: `agent`."""
        return f"{self.prefix}:range:{range_id}:inbox"

    def outbox(self, range_id: str) -> str:
        """What the agent of one range says. Groups: `deployer`, `tracker`."""
        return f"{self.prefix}:range:{range_id}:outbox"

    def range_progress(self, range_id: str) -> str:
        """How far one range's transfers are; the deployer's side copies it to `progress`. Capped."""
        return f"{self.prefix}:range:{range_id}:progress"

    def range_dead(self, range_id: str) -> str:
        """Entries that one range's agent gave up on (it may not write `dead`)."""
        return f"{self.prefix}:range:{range_id}:dead"

    def alive(self, range_id: str) -> str:
        """A key that expires when the agent of one range stops beating."""
        return f"{self.prefix}:range:{range_id}:alive"

    def cancelled(self, range_id: str, transfer_id: str) -> str:
        """A record that one transfer of a range is no longer wanted, kept by that range's agent."""
        return f"{self.prefix}:range:{range_id}:cancelled:{transfer_id}"

    @property
    def outbox_pattern(self) -> str:
        """Glob of every range's outbox."""
        return f"{self.prefix}:range:*:outbox"

    @property
    def inbox_pattern(self) -> str:
        """Glob of every range's inbox."""
        return f"{self.prefix}:range:*:inbox"

    @property
    def range_dead_pattern(self) -> str:
        """Glob of every range's dead letters."""
        return f"{self.prefix}:range:*:dead"

    def range_of(self, stream: str) -> str | None:
        """The range id in the name of a range's stream, None for the shared streams."""
        head, _, rest = stream.partition(f"{self.prefix}:range:")
        if head or not rest:
            return None
        range_id, _, _ = rest.rpartition(":")
        return range_id or None
