"""Rows of lists: the summary of each thing, small enough that a page of fifty fits in 64 kB; details are asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from events.messages import Failure, LayerProgress

#: Of a text that somebody else wrote, a row has so much.
TEXT_CHARACTERS = 200
#: So many references a row names.
NAMED = 3


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a list."""


class RegistryImageRow(Row, frozen=True, kw_only=True):
    """A tag in the registry. `unique_bytes`: of layers that no other tag has. `ranges`: how many have this content.

    `kind`: `other` names no image of one platform; `damaged` says why in `problem`.
    """

    reference: str
    repository: str
    tag: str
    kind: Literal["image", "other", "damaged"]
    manifest_digest: str
    image_id: str
    layers: int
    size_bytes: int
    unique_bytes: int
    pushed_at: datetime
    actor: str = ""
    source: str = ""
    ranges: int = 0
    problem: str = ""


class RepositoryRow(Row, frozen=True, kw_only=True):
    """A repository. `logical_bytes` as if its tags shared nothing, `stored_bytes` each layer once.

    `unique_bytes` of those are in no other repository, `shared_bytes` are.
    """

    repository: str
    tags: int
    layers: int
    logical_bytes: int
    stored_bytes: int
    unique_bytes: int
    shared_bytes: int


class HostImageRow(Row, frozen=True, kw_only=True):
    """An image of the host's engine under one of its names.

    `registry`: same, other (that name has other content there), no, or `-` for an image without a name.
    """

    reference: str
    image_id: str | None
    local_id: str
    size_bytes: int
    platform: str
    registry: Literal["same", "other", "no", "-"]


class DeploymentRow(Row, frozen=True, kw_only=True):
    """A deployment. `images` counts them, `ready` and `failed` of them; `references` are the first ones."""

    deployment_id: str
    range_id: str
    state: str
    priority: int
    requested_at: datetime
    ended_at: datetime | None = None
    images: int = 0
    ready: int = 0
    failed: int = 0
    references: tuple[str, ...] = ()
    queue_position: int | None = None
    error: Failure | None = None
    reason: str = ""
    actor: str = ""


class Contest(Row, frozen=True, kw_only=True):
    """Two agents speak for a range: on which engines, and since when."""

    engine_ids: tuple[str, ...]
    since: datetime


class RangeRow(Row, frozen=True, kw_only=True):
    """A range. `missing` counts desired images that it lacks, `unreferenced` those that nobody needs there.

    `host`: where it runs; empty where that was not said.
    """

    range_id: str
    host: str = ""
    agent: Literal["alive", "away", "unreadable"]
    engine_id: str = ""
    engine_version: str = ""
    store: str = ""
    platform: str = ""
    at: str = ""
    """When it sent its last heartbeat, by its own clock."""
    heard_at: datetime | None = None
    images: int = 0
    desired: int = 0
    missing: int = 0
    unreferenced: int = 0
    open_deployments: int = 0
    contested: Contest | None = None


class PushRow(Row, frozen=True, kw_only=True):
    """A push: requested, pushing, pushed, failed or skipped. `why`: manual, on_demand, auto, prompt."""

    id: str
    reference: str
    state: str
    why: str
    asked_at: datetime
    ended_at: datetime | None = None
    image_id: str | None = None
    actor: str = ""
    source: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    error: Failure | None = None


class TransferRow(Row, frozen=True, kw_only=True):
    """A transfer under way, as it was last told, layer by layer where layers can be told apart."""

    transfer_id: str
    reference: str
    kind: str
    phase: str
    range_id: str | None
    done_bytes: int
    total_bytes: int
    layers_done: int
    layers_total: int
    bytes_per_second: float
    seconds_left: float | None
    started_at: datetime
    updated_at: datetime
    stalled: bool
    note: str = ""
    layers: tuple[LayerProgress, ...] = ()


class PromptRow(Row, frozen=True, kw_only=True):
    """An open question whether an image is to be pushed."""

    id: str
    reference: str
    image_id: str
    asked_at: datetime
    size_bytes: int = 0
    origin: str = ""


class PlanRow(Row, frozen=True, kw_only=True):
    """A plan. `there` of its `images` are in the registry, `ready_ranges` of its `ranges` have all of them."""

    plan_id: str
    state: str
    announced_at: datetime
    images: int = 0
    there: int = 0
    ranges: int = 0
    ready_ranges: int = 0


def cut(text: str) -> str:
    """The beginning of a text that somebody else wrote."""
    return text if len(text) <= TEXT_CHARACTERS else f"{text[:TEXT_CHARACTERS]}…"


def cut_failure(failure: Failure | None) -> Failure | None:
    """The same for the message of a failure."""
    return None if failure is None else msgspec.structs.replace(failure, message=cut(failure.message))
