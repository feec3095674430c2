"""Answers of the layer-mounter to the deployer about one transfer, and its progress before them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from events.messages import LayersMounted, MountFailed, MountRequested, TransferProgress
from services.core.mounts.layer_mounts import is_compressed
from services.errors import LayersNotMounted

Answer = LayersMounted | MountFailed
#: Progress is told this often.
TELL_SECONDS = 1.0


class UnpackProgress:
    """Progress of a transfer that waits until its compressed layers are unpacked, in bytes as the registry has them.

    The deployer waits as long as it hears of it, so it is told again and again. Its phase is one before those of the
    pull, which follows in any case.
    """

    def __init__(self, request: MountRequested, report: Callable[[TransferProgress], None]) -> None:
        self._request = request
        self._report = report
        self._sizes = {layer.digest: layer.size_bytes for layer in request.layers if is_compressed(layer)}
        self._read: dict[str, int] = {}

    def read(self, digest: str, read_bytes: int) -> None:
        """So much of a blob was read."""
        self._read[digest] = read_bytes

    @asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """Tell of it until the block ends; of raw layers there is nothing to tell."""
        telling = asyncio.create_task(self._tell()) if self._sizes else None
        try:
            yield
        finally:
            if telling is not None:
                telling.cancel()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            self._report(
                TransferProgress(
                    transfer_id=self._request.transfer_id,
                    reference=self._request.reference,
                    kind="pull",
                    phase="reading",
                    range_id=self._request.range_id,
                    done_bytes=sum(self._read.values()),
                    total_bytes=sum(self._sizes.values()),
                    note="compressed layers are unpacked on the host",
                )
            )


def mounted(transfer_id: str, range_id: str, seconds: float) -> Answer:
    """The answer that the range sees all layers."""
    return LayersMounted(transfer_id=transfer_id, range_id=range_id, seconds=seconds)


def not_mounted(transfer_id: str, range_id: str, problem: LayersNotMounted) -> Answer:
    """The answer that the range sees none of the new layers, and why."""
    return MountFailed(transfer_id=transfer_id, range_id=range_id, error=problem.failure())
