"""Stream names under a key prefix, and which groups read them.

With the prefix `{cyroid}` every key lands in one Redis Cluster slot, which the bus's scripts need there.
All helper keys that the bus keeps for a stream begin with that stream's own name: an ACL pattern such as
`cyroid:range:7:*` covers everything that the agent of range 7 needs, and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: As `events.messages.Identifier`: a range may make keys under its own name, and call them what it likes.
_RANGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


#: The groups that read these streams. Others may exist: whoever may write a stream may make groups there.
GROUPS = ("registry-pusher", "deployer", "tracker", "agent", "agent-cancel")


@dataclass(frozen=True, slots=True)
class Streams:
    """Names of keys. `Streams("cyroid").images == "cyroid:images"`."""

    prefix: str = "cyroid"

    @property
    def images(self) -> str:
        """Images that appeared, are to be pushed, or were pushed. Groups: `registry-pusher`, `deployer`, `tracker`."""
        return f"{self.prefix}:images"

    @property
    def deployments(self) -> str:
        """Deployments requested and ended. Groups: `deployer`, `tracker`."""
        return f"{self.prefix}:deployments"

    @property
    def deployer(self) -> str:
        """The deployer's own timers and wake-ups, and the answers of layer-mounters. Group: `deployer`."""
        return f"{self.prefix}:deployer"

    def host_inbox(self, host: str) -> str:
        """Commands for one host. Groups: `layer-mounter`, `registry-pusher`, `host-images`, `host-look`."""
        return f"{self.prefix}:host:{host}:inbox"

    def host_alive(self, host: str) -> str:
        """The heartbeat of one host, sent by its registry-pusher: expires when that stops."""
        return f"{self.prefix}:host:{host}:alive"

    def host_look(self, host: str, look_id: str) -> str:
        """A host's answer to one question; expires."""
        return f"{self.prefix}:host:{host}:look:{look_id}"

    def mounter_alive(self, host: str) -> str:
        """The heartbeat of one host's layer-mounter: expires when it stops, or cannot mount."""
        return f"{self.prefix}:host:{host}:layer-mounter"

    @property
    def progress(self) -> str:
        """Progress of pushes and transfers. No group; capped."""
        return f"{self.prefix}:progress"

    @property
    def dead(self) -> str:
        """Dead letters: entries that a service gave up on. Read by people."""
        return f"{self.prefix}:dead"

    def inbox(self, range_id: str) -> str:
        """Commands to the agent of one range. Groups: `agent`; `agent-cancel`, which handles cancels at once."""
        return f"{self.prefix}:range:{range_id}:inbox"

    def outbox(self, range_id: str) -> str:
        """Messages of the agent of one range. Groups: `deployer`, `tracker`."""
        return f"{self.prefix}:range:{range_id}:outbox"

    def range_progress(self, range_id: str) -> str:
        """Progress of one range's transfers; the tracker copies it to `progress`. No group; capped."""
        return f"{self.prefix}:range:{range_id}:progress"

    def range_dead(self, range_id: str) -> str:
        """Dead letters of one range's agent (it may not write `dead`)."""
        return f"{self.prefix}:range:{range_id}:dead"

    def refused(self, range_id: str) -> str:
        """Dead letters out of one range's outbox, written by the services; the range may not write it. Capped."""
        return f"{self.prefix}:refused:{range_id}"

    def alive(self, range_id: str) -> str:
        """The heartbeat of one range's agent: a key that expires when the agent stops sending it."""
        return f"{self.prefix}:range:{range_id}:alive"

    def cancelled(self, range_id: str, transfer_id: str) -> str:
        """A record that one transfer of a range was cancelled, kept by that range's agent."""
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

    @property
    def refused_pattern(self) -> str:
        """Glob of what was refused from every range's outbox."""
        return f"{self.prefix}:refused:*"

    def range_of(self, stream: str) -> str | None:
        """The range id in the name of a range's stream, None for the shared streams."""
        head, _, rest = stream.partition(f"{self.prefix}:range:")
        if head or not rest:
            return None
        range_id, _, _ = rest.rpartition(":")
        return range_id if _RANGE_ID.fullmatch(range_id) else None
