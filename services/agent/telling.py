"""What is told of one transfer: how far it is and, last of all, how it ended.

The worker tells what was reported last together with the end of the entry, so an end is told once and never lost behind
the bytes before it. Nothing is told of an image that was there already: no transfer began.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from events.messages import LoadOffered, PullRequested, TransferProgress
from services.core.pull_progress import PullProgress

Report = Callable[[TransferProgress], None]


class Telling:
    """The reports of one request's transfer."""

    def __init__(self, request: PullRequested | LoadOffered, range_id: str, report: Report) -> None:
        self._request = request
        self._range_id = range_id
        self._report = report
        self._last: TransferProgress | None = None

    @property
    def done_bytes(self) -> int:
        """How many came so far."""
        return 0 if self._last is None else self._last.done_bytes

    def pulling(self, progress: PullProgress) -> None:
        """The engine said how far its pull is."""
        self._tell(
            TransferProgress(
                transfer_id=self._request.transfer_id,
                reference=self._request.reference,
                kind="pull",
                phase=progress.phase,
                range_id=self._range_id,
                done_bytes=progress.done_bytes,
                total_bytes=progress.total_bytes or self._request.total_bytes,
                layers_done=progress.layers_done,
                layers_total=progress.layers_total,
            )
        )

    def loading(self, done_bytes: int, total_bytes: int, ended: bool) -> None:
        """`ended`: every byte of the archive was sent, and the engine still unpacks."""
        self._tell(
            TransferProgress(
                transfer_id=self._request.transfer_id,
                reference=self._request.reference,
                kind="load",
                phase="extracting" if ended else "downloading",
                range_id=self._range_id,
                done_bytes=done_bytes,
                total_bytes=total_bytes,
                layers_total=len(self._request.diff_ids),
            )
        )

    def waiting(self, note: str) -> None:
        """Its turn has not come yet, and why."""
        self._tell(
            TransferProgress(
                transfer_id=self._request.transfer_id,
                reference=self._request.reference,
                kind="load",
                phase="waiting",
                range_id=self._range_id,
                total_bytes=self._request.total_bytes,
                layers_total=len(self._request.diff_ids),
                note=note,
            )
        )

    def ended(self, well: bool) -> None:
        """The engine has the image, its content checked; or this way did not lead there."""
        if self._last is None:
            return
        if well:
            last = self._last
            done_bytes = last.total_bytes or last.done_bytes
            end = msgspec.structs.replace(last, phase="done", done_bytes=done_bytes, layers_done=last.layers_total)
        else:
            end = msgspec.structs.replace(self._last, phase="failed")
        self._tell(end)

    def _tell(self, progress: TransferProgress) -> None:
        self._last = progress
        self._report(progress)
