"""Answers of the layer-mounter to the deployer about one transfer."""

from __future__ import annotations

from events.messages import LayersMounted, MountFailed
from services.errors import LayersNotMounted

Answer = LayersMounted | MountFailed


def mounted(transfer_id: str, range_id: str, seconds: float) -> Answer:
    """The answer that the range sees all layers."""
    return LayersMounted(transfer_id=transfer_id, range_id=range_id, seconds=seconds)


def not_mounted(transfer_id: str, range_id: str, problem: LayersNotMounted) -> Answer:
    """The answer that the range sees none of the new layers, and why."""
    return MountFailed(transfer_id=transfer_id, range_id=range_id, error=problem.failure())
