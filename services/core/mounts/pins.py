"""Record of the blobs that stand behind mounted layers, one per host: the collector keeps them, whatever tags say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from events.bus import IndexWrite, Outcome, Post
from events.records import ANY, Key
from services.core.mounts.problems import MountProblem
from services.core.mounts.records import ShownLayers

_PROBLEMS_LIMIT = 1000


class MountedBlobs(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of all blobs of which a host shows layers to its ranges, and what cannot be read of that."""

    digests: tuple[str, ...] = ()
    problems: tuple[MountProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class MountKeys:
    """Names of the records and of their index."""

    prefix: str

    def host(self, host: str) -> Key[MountedBlobs]:
        return Key(f"{self.prefix}:mounted:{host}", MountedBlobs)

    @property
    def hosts(self) -> str:
        return f"{self.prefix}:index:mounted"

    def pinned(
        self, host: str, shown: Iterable[ShownLayers], *posts: Post, problems: Sequence[MountProblem] = ()
    ) -> Outcome:
        """What a host shows now, and the first of its `problems`, are recorded together with `posts`."""
        digests = {digest for one in shown for digest in one.digests}
        record = MountedBlobs(digests=tuple(sorted(digests)), problems=tuple(problems[:_PROBLEMS_LIMIT]))
        write = self.host(host).write(record, expected=ANY)
        return Outcome(posts=posts, records=(write,), index=(IndexWrite(self.hosts, host, 0.0),))
