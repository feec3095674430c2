"""Problems of mounted layers, as the host's layer-mounter and the range's agent find them, and what helps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from events.messages import Layer
from services.core.mounts.layer_mounts import is_compressed

_COVERED = (
    "it is not mounted in the range, or something covers it there: deploy the image again (cyroid-images deploy RANGE"
    " IMAGE), and if that does not help restart the range's container"
)
_NO_MOUNTER = "it is not mounted, and no layer-mounter runs: start the service layer-mounter on the range's host"


class MountProblem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A layer that a range is shown, or should be, and that cannot be read; without a `diff_id` it is the seed."""

    range_id: str
    diff_id: str
    why: str


class ReportedLayers(NamedTuple):
    """Mounted layers that the agent of a range cannot read there; `host` is where the range runs, if that is known."""

    range_id: str
    host: str
    diff_ids: tuple[str, ...]


class UnreadableLayer(NamedTuple):
    """A mounted layer that cannot be read in a range, and who found that. `host` is empty where it is not known."""

    host: str
    found_by: Literal["layer-mounter", "agent"]
    range_id: str
    diff_id: str


def unreadable_layers(
    found: Mapping[str, Iterable[MountProblem]], reported: Iterable[ReportedLayers], hosts: Iterable[str]
) -> Iterator[UnreadableLayer]:
    """All layers that hosts `found`, or agents `reported`, to be unreadable.

    A host that is none of `hosts` is not known: what ranges say makes no new one.
    """
    known = {*hosts, *found}
    for host, problems in found.items():
        for problem in problems:
            if problem.diff_id:
                yield UnreadableLayer(host, "layer-mounter", problem.range_id, problem.diff_id)
    for said in reported:
        for diff_id in said.diff_ids:
            yield UnreadableLayer(said.host if said.host in known else "", "agent", said.range_id, diff_id)


def blob_problem(layer: Layer, found_bytes: int | None) -> str | None:
    """What is wrong with the blob behind a mounted layer, of which the registry's storage has so many bytes.

    None as `found_bytes`: the registry has it no more. Bytes that were exchanged are found by the collector's scrub.
    """
    if found_bytes is None and is_compressed(layer):
        return (
            "the registry has lost its blob; what was unpacked of it can be read, but not made again: push the image"
            " again (cyroid-images images push IMAGE)"
        )
    if found_bytes is None:
        return (
            "the registry has lost its blob, which can be read until the host is restarted: push the image again"
            " (cyroid-images images push IMAGE)"
        )
    if found_bytes != layer.size_bytes:
        return (
            f"its blob in the registry has {found_bytes} bytes, not {layer.size_bytes}, and reading it fails: run"
            " cyroid-images registry collect --scrub, push the image again, remove it from the range and deploy it"
        )
    return None


def unreadable(
    range_id: str, found: Mapping[str, Iterable[MountProblem]], reported: Iterable[str], *, mounter_runs: bool
) -> dict[str, str]:
    """Diff ID → why it cannot be read in a range, by what its hosts `found` and what its agent `reported`."""
    said = dict.fromkeys(reported, _COVERED if mounter_runs else _NO_MOUNTER)
    return said | {
        problem.diff_id: f"on host {host}, {problem.why}"
        for host, problems in found.items()
        for problem in problems
        if problem.range_id == range_id and problem.diff_id
    }
