"""Progress reporter of one transfer: its phases and bytes, and finally its end.

The worker tells what was reported last together with the end of the entry, so an end is told once and never lost behind
the bytes before it. Nothing is told of an image that was there already: no transfer began.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from events.messages import LayerPhase, LayerProgress, LoadOffered, PullRequested, TransferProgress
from services.core.images.pull_progress import PullProgress

Report = Callable[[TransferProgress], None]


class TransferReporter:
    """Reports the progress of one request's transfer."""

    def __init__(self, request: PullRequested | LoadOffered, range_id: str, report: Report) -> None:
        self._request = request
        self._range_id = range_id
        self._report = report
        self._last: TransferProgress | None = None

    @property
    def done_bytes(self) -> int:
        """Bytes that have arrived so far."""
        return 0 if self._last is None else self._last.done_bytes

    def pulling(self, progress: PullProgress) -> None:
        """Report the engine's progress of a pull."""
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
                layers=progress.told_layers(),
            )
        )

    def loading(self, done_bytes: int, total_bytes: int, ended: bool) -> None:
        """Report the progress of a load. `ended`: every byte of the archive was sent, and the engine still unpacks."""
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
        """Report that the transfer waits for its turn, and why."""
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
        """Report the end: the engine has the verified image, or this transfer failed."""
        if self._last is None:
            return
        if well:
            last = self._last
            done_bytes = last.total_bytes or last.done_bytes
            layers = tuple(_complete(layer) for layer in last.layers)
            end = msgspec.structs.replace(
                last, phase="done", done_bytes=done_bytes, layers_done=last.layers_total, layers=layers
            )
        else:
            end = msgspec.structs.replace(self._last, phase="failed")
        self._tell(end)

    def _tell(self, progress: TransferProgress) -> None:
        self._last = progress
        self._report(progress)


def _complete(layer: LayerProgress) -> LayerProgress:
    """The layer of an image that is there."""
    phase: LayerPhase = "reused" if layer.phase == "reused" else "done"
    return msgspec.structs.replace(layer, phase=phase, done_bytes=layer.total_bytes)
