"""Load of an archive stream into the engine, with a stall watch on both sides.

Once it has every byte, an engine may unpack for long without progress: its patience grows with what it has to write
then, and whoever follows the transfer is told now and then that it is at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from services.agent.inspection import Wanted, give_name
from services.agent.pull import Patience
from services.agent.stall_watch import Activity, Watch
from services.errors import WrongContent
from services.ports import Chunks, Engine

#: Called with the bytes received so far, and whether all of them are there (the engine unpacks then).
Report = Callable[[int, bool], None]
#: What an engine writes in a second at least, on a slow disk that others use as well.
UNPACKED_BYTES_PER_SECOND = 16 * 1024 * 1024
#: How often those who follow the transfer are told that the engine unpacks.
RETELL_SECONDS = 10.0


async def load(
    engine: Engine, wanted: Wanted, archive: Chunks, *, activity: Activity, patience: Patience, report: Report
) -> int:
    """Load `archive`, see that the engine has `wanted` under its name; returns the bytes received.

    The archive carries the name, so one whose content is wrong takes it away from whatever had it: then the name goes.
    Raises BadArchive where the engine refuses the archive, the archive's own error where that breaks off, Stalled or
    WrongContent.
    """
    counter = _Counter(archive, report)
    with activity.watch(patience.stall_seconds) as watch:
        counter.watched(watch, activity, patience)
        with counter.retelling():
            async with (
                watch.guard(f"the load of {wanted.reference}"),
                engine.load(counter.chunks()) as lines,
            ):
                async for _ in lines:
                    activity.moved(watch)
                    report(counter.received_bytes, counter.ended)
    await _check(engine, wanted)
    return counter.received_bytes


class _Counter:
    """Counts an archive's bytes on their way."""

    def __init__(self, archive: Chunks, report: Report) -> None:
        self.received_bytes = 0
        self.ended = False
        self._archive = archive
        self._report = report
        self._moved: Callable[[], None] = lambda: None
        self._unpacks: Callable[[], None] = lambda: None

    def watched(self, watch: Watch, activity: Activity, patience: Patience) -> None:
        def unpacks() -> None:
            watch.bear(patience.stall_seconds + self.received_bytes / UNPACKED_BYTES_PER_SECOND)

        self._moved = lambda: activity.moved(watch)
        self._unpacks = unpacks

    @contextmanager
    def retelling(self) -> Iterator[None]:
        """Say again how far it is while the engine unpacks. It is no sign that anything moves."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def tell() -> None:
            nonlocal timer
            timer = loop.call_later(RETELL_SECONDS, tell)
            if self.ended:
                self._report(self.received_bytes, True)

        timer = loop.call_later(RETELL_SECONDS, tell)
        try:
            yield
        finally:
            timer.cancel()

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._archive:
            self.received_bytes += len(chunk)
            self._moved()
            self._report(self.received_bytes, False)
            yield chunk
        self.ended = True
        self._unpacks()
        self._report(self.received_bytes, True)


async def _check(engine: Engine, wanted: Wanted) -> None:
    """Inspect the engine and check that it has the wanted content under its name."""
    image = await engine.inspect(wanted.image_id) or await engine.inspect(wanted.reference)
    if image is None:
        # A containerd store names what it cannot unpack for want of a layer left out, and says that all is well.
        await engine.untag(wanted.reference)
        raise WrongContent(f"the load of {wanted.reference} ended, but the engine does not have it")
    if not wanted.is_after_transfer(image):
        if wanted.reference in image.references:
            await engine.untag(wanted.reference)
        raise WrongContent(f"the archive of {wanted.reference} brought {image.image_id or image.diff_ids}")
    await give_name(engine, wanted, image)
