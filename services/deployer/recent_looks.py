"""Recent looks at hosts: one look answers everybody who began to ask before it, for a moment.

Each question costs an entry in a host's inbox, its engine's answer and the polls for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from services.core.deployments.deployment import ImageState
from services.core.deployments.facts import HostImage
from services.deployer.recent_answers import RecentAnswers

Found = tuple[HostImage | None, str | None]
_Question = tuple[str, str | None, tuple[str, ...]]


class HostFinder(Protocol):
    """Finds images on the engines of hosts."""

    async def find(self, reference: str, image_id: str | None = None, diff_ids: tuple[str, ...] = ()) -> Found:
        """What a host has under this name, or as this content; why that is not known."""

    async def tar_url(self, host: str) -> str | None:
        """The tar server of a host, as ranges reach it; None where it is not known."""


class RecentLooks:
    """The looks of one replica. Only what was found is kept: that a host is away, or has nothing, is asked again."""

    def __init__(self, hosts: HostFinder, clock: Callable[[], datetime]) -> None:
        self._hosts = hosts
        self._clock = clock
        self._kept: RecentAnswers[_Question, HostImage] = RecentAnswers()

    def __len__(self) -> int:
        return len(self._kept)

    async def find(self, image: ImageState) -> Found:
        """What a host has under the image's name, or as the content that is chosen; why that is not known.

        Raises BusError.
        """
        question, now = (image.reference, image.image_id, image.diff_ids), self._clock()
        known = self._kept.find(question, since=image.since, now=now)
        if known is not None:
            return known, None
        found, away = await self._hosts.find(*question)
        if found is not None:
            self._kept.keep(question, found, now)
        return found, away
