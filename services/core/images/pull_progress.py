"""Pull progress from an engine's lines: bytes and layers done, bytes received, whether anything moves.

An engine names layers by the first 12 digits of their blob's digest and tells, per layer, one of (moby
distribution/pull_v2.go, distribution/xfer/download.go, pkg/progress; containerd stores: daemon/containerd/progress.go)

    Pulling fs layer · Waiting · Downloading · Retrying in N seconds · Verifying Checksum · Download complete
    Extracting · Pull complete · Already exists

Sizes come from the manifest where they are known, because small layers go by without one. A layer that is on its way
to the engine counts as received with the bytes that the engine said it has, or all of them once it is complete; what
`Already exists` is reused. Lines without a layer (the digest, the status) say nothing about bytes.

Pulls that run at the same time share an engine's download of a layer, and are both told of it: the first one counts
its bytes, for the others the layer is reused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from events.messages import LAYERS_TOLD, Layer, LayerPhase, LayerProgress

Phase = Literal["waiting", "downloading", "extracting"]
_ACTIVE = ("Pulling fs layer", "Downloading", "Verifying Checksum", "Extracting", "Retrying")
_DOWNLOADED = ("Download complete", "Extracting", "Pull complete")
_DONE = ("Pull complete", "Already exists")


@dataclass(slots=True)
class _LayerState:
    size_bytes: int = 0
    status: str = ""
    received_bytes: int = 0
    extracted_bytes: int = 0
    shared: bool = False

    @property
    def fetched(self) -> bool:
        """Whether the layer is downloaded for this pull."""
        return bool(self.status) and self.status != "Already exists" and not self.shared


class PullProgress:
    """Sums up one pull. `layers` are the manifest's; without them, what the engine tells is all there is.

    `coming` are the layers that pulls of the same engine count at the moment; `over` takes this one's out.
    """

    def __init__(self, layers: Sequence[Layer] = (), coming: set[str] | None = None) -> None:
        self._coming = set() if coming is None else coming
        self._counted: set[str] = set()
        self._known = bool(layers)
        self._layers = {_short(layer.digest): _LayerState(layer.size_bytes) for layer in layers}
        self._count = len(layers)
        self.retrying = False

    def take(self, status: str, layer: str | None, done_bytes: int = 0, total_bytes: int = 0) -> bool:
        """Take one line of the engine. True if it shows that something moved; an announced retry is no movement."""
        state = self._state(layer)
        if state is None:
            return True
        kind = "Retrying" if status.startswith("Retrying") else status
        moved = kind not in {state.status, "Retrying"}
        self.retrying = kind == "Retrying" or (self.retrying and not moved)
        state.status = kind
        if layer is not None and kind != "Already exists":
            self._count_once(layer, state)
        if kind == "Downloading":
            if not self._known:
                state.size_bytes = max(state.size_bytes, total_bytes)
            moved |= done_bytes != state.received_bytes
            state.received_bytes = done_bytes
        elif kind == "Extracting":
            moved |= done_bytes != state.extracted_bytes
            state.extracted_bytes = done_bytes
        if kind in _DOWNLOADED:
            state.received_bytes = max(state.size_bytes, state.received_bytes)
        if kind == "Pull complete":
            state.extracted_bytes = state.size_bytes
        return moved

    def over(self) -> None:
        """End the pull: another one counts these layers from now on."""
        self._coming -= self._counted

    def _count_once(self, layer: str, state: _LayerState) -> None:
        if layer in self._counted or state.shared:
            return
        if layer in self._coming:
            state.shared = True
        else:
            self._counted.add(layer)
            self._coming.add(layer)

    def _state(self, layer: str | None) -> _LayerState | None:
        if layer is None:
            return None
        if not self._known and layer not in self._layers and len(layer) == 12:
            self._layers[layer] = _LayerState()
        return self._layers.get(layer)

    @property
    def queued(self) -> bool:
        """Whether the engine makes this pull wait for others: none of its layers is in work."""
        states = [state.status for state in self._layers.values()]
        return "Waiting" in states and not any(status in _ACTIVE for status in states)

    @property
    def received_bytes(self) -> int:
        """Bytes that were downloaded, of layers that were not there."""
        return sum(
            state.received_bytes
            for state in self._layers.values()
            if state.status != "Already exists" and not state.shared
        )

    @property
    def total_bytes(self) -> int:
        """Bytes of all layers, as blobs."""
        return sum(state.size_bytes for state in self._layers.values())

    @property
    def layers_total(self) -> int:
        return self._count or len(self._layers)

    @property
    def layers_done(self) -> int:
        return sum(state.status in _DONE for state in self._layers.values())

    @property
    def layers_reused(self) -> int:
        """Layers not downloaded for this: there already, on their way for another pull, or never spoken of."""
        return self.layers_total - sum(state.fetched for state in self._layers.values())

    def told_layers(self) -> tuple[LayerProgress, ...]:
        """The first layers one by one, as progress messages have them."""
        return tuple(_told(digest, state) for digest, state in list(self._layers.items())[:LAYERS_TOLD])

    @property
    def phase(self) -> Phase:
        """Extracting overlaps with downloading; it is the phase once every layer has come."""
        states = [state.status for state in self._layers.values()]
        if not any(states):
            return "waiting"
        downloaded = all(status in _DOWNLOADED or status == "Already exists" for status in states)
        return "extracting" if downloaded else "waiting" if self.queued else "downloading"

    @property
    def done_bytes(self) -> int:
        """How far the phase is: bytes received, or extracted. What the engine had already counts as done."""
        if self.phase == "extracting":
            return sum(
                state.size_bytes if state.status in _DONE else min(state.extracted_bytes, state.size_bytes)
                for state in self._layers.values()
            )
        return sum(
            state.size_bytes if state.status in _DONE else state.received_bytes for state in self._layers.values()
        )


def _told(digest: str, state: _LayerState) -> LayerProgress:
    size_bytes = state.size_bytes
    if state.status in _DONE:
        phase: LayerPhase = "reused" if state.status == "Already exists" else "done"
        return LayerProgress(digest=digest, phase=phase, done_bytes=size_bytes, total_bytes=size_bytes)
    if state.status in _DOWNLOADED:
        extracted_bytes = min(state.extracted_bytes, size_bytes)
        return LayerProgress(digest=digest, phase="extracting", done_bytes=extracted_bytes, total_bytes=size_bytes)
    phase = "running" if state.status in _ACTIVE else "waiting"
    return LayerProgress(digest=digest, phase=phase, done_bytes=state.received_bytes, total_bytes=size_bytes)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
