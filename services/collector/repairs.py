"""Repair of damaged images: a push of each that lost content, from the host's engine, which may still have it."""

from __future__ import annotations

from collections.abc import Iterable

from events.bus import Post
from events.envelope import Envelope
from events.messages import PushRequested
from events.streams import Streams
from services.core.images.references import Reference


def repairs(cause: Envelope, affected: Iterable[tuple[str, str]], *, streams: Streams, source: str) -> tuple[Post, ...]:
    """A command for each (repository, tag) that has a name of ours; what a foreign client pushed may have none."""
    named = (Reference.from_registry(repository, tag) for repository, tag in affected)
    references = [str(reference) for reference in named if reference is not None]
    return tuple(
        Post(
            streams.images,
            cause.causes(PushRequested(reference=reference, why="auto"), source=source, subject=reference),
        )
        for reference in references
    )
