"""Everything that is ever said, as one tagged union.

Commands are imperative and have one handler; events are past tense and have any number. A message's tag is its wire
type (`image.built.v1`). New fields have defaults; a change that breaks readers is a new `.v2` type. Unknown fields
are ignored. Defaults are left out on the wire, so a missing field means the default written here.

Conventions: `image_id` is always the config digest (`sha256:…` of the image's config JSON); sizes end in `_bytes`;
durations in `_seconds`; a `reference` is a full, normalised image reference (`docker.io/library/nginx:1.27`) or what
the user wrote, readers normalise it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Push = Literal["auto", "always", "ask", "never"]
"""What a publisher wants of the registry: `auto` follows the setting, `ask` makes a prompt for an operator."""

PushReason = Literal["manual", "on_demand", "auto", "prompt"]
PushMethod = Literal["present", "layers", "blobs", "save", "docker_push"]
"""How an image got into the registry: nothing to do, layer store, content store, split save stream, engine push."""

LayerCodec = Literal["raw", "gzip", "zstd"]
Arrival = Literal["present", "retagged", "pulled", "loaded"]
"""How an image got into a range, from cheapest to dearest."""

#: Ends a pattern. `$` alone lets a line break follow (Python's `re`); `\Z` is none of a JSON Schema's (ECMA 262).
END = r"$(?!\n)"
Digest = Annotated[str, Meta(pattern=rf"^sha256:[0-9a-f]{{64}}{END}")]
Identifier = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,127}}{END}")]
"""A range or deployment id: safe as part of a Redis key, an ACL pattern, a file name and a URL."""

Reference = Annotated[str, Meta(min_length=1, max_length=1024)]
Size = Annotated[int, Meta(ge=0)]


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something did not happen. `code` is stable (for programs), `message` says what, where, why, what to do."""

    code: str
    message: str
    retryable: bool = False


class Layer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One layer as the registry holds it. For codec `raw`, `digest == diff_id`. Order is base first."""

    digest: Digest
    diff_id: Digest
    size_bytes: Size
    codec: LayerCodec = "raw"


class PresentImage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image that an engine has. `image_id` is None where the engine cannot tell it (containerd store).

    `local_id` is what the engine calls it where that is not the image id; `size_bytes` is 0 where nobody said.
    """

    references: tuple[str, ...]
    diff_ids: tuple[str, ...]
    image_id: str | None = None
    local_id: str | None = None
    size_bytes: Size = 0


class ImageOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one image of a deployment: exactly one of `how` and `error` is set, or neither if cancelled.

    `ready_at` is set beside `how`: when the range's engine had it, by the range's clock. Deployments of one range end
    in another order than their images arrive.
    """

    reference: str
    image_id: str | None = None
    how: Arrival | None = None
    ready_at: datetime | None = None
    sent_bytes: Size = 0
    layers_reused: Size = 0
    layers_total: Size = 0
    seconds: float = 0.0
    error: Failure | None = None


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    pass


# ---- images ---------------------------------------------------------------------------------------------------


class _ImageAppeared(_Message, frozen=True, kw_only=True, omit_defaults=True):
    reference: Reference
    image_id: Digest
    size_bytes: Size = 0
    platform: str = "linux/amd64"
    origin: str = ""
    push: Push = "auto"


class ImageBuilt(_ImageAppeared, frozen=True, kw_only=True, omit_defaults=True, tag="image.built.v1"):
    """The host engine built an image. `origin` is the context it was built from."""


class ImageImported(_ImageAppeared, frozen=True, kw_only=True, omit_defaults=True, tag="image.imported.v1"):
    """The host engine loaded or pulled an image. `origin` is the archive's name or the reference pulled."""


class ImagePromoted(_ImageAppeared, frozen=True, kw_only=True, omit_defaults=True, tag="image.promoted.v1"):
    """A container was committed, or an image got another name. `origin` is the container or the old name."""


class PushRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.push_requested.v1"):
    """Command to the registry-pusher. Without `image_id`, whatever the host engine has under `reference` now."""

    reference: Reference
    image_id: Digest | None = None
    why: PushReason = "manual"


class ImagePushed(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.pushed.v1"):
    """The registry has the image, complete, as `repository@manifest_digest` and `repository:tag`."""

    reference: Reference
    repository: str
    tag: str
    manifest_digest: Digest
    image_id: Digest
    layers: tuple[Layer, ...] = ()
    sent_bytes: Size = 0
    reused_bytes: Size = 0
    seconds: float = 0.0
    method: PushMethod = "layers"


class ImagePushFailed(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.push_failed.v1"):
    """The registry does not have the image, and trying on will not help (or was tried often enough)."""

    reference: Reference
    error: Failure
    image_id: Digest | None = None


class ImageDeleted(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.deleted.v1"):
    """The registry no longer names the image. `collected` is False while garbage collection is still to come."""

    reference: Reference
    manifest_digest: Digest
    freed_bytes: Size = 0
    collected: bool = False


# ---- deployments ----------------------------------------------------------------------------------------------


class DeploymentRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="deployment.requested.v1"):
    """Command to the deployer: bring `images` to the engine of `range_id`. `engine_url` for a range without agent."""

    deployment_id: Identifier
    range_id: Identifier
    images: Annotated[tuple[Reference, ...], Meta(min_length=1)]
    platform: str | None = None
    engine_url: str | None = None
    priority: Annotated[int, Meta(ge=0, le=9)] = 5


class DeploymentPlanned(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="deployment.planned.v1"):
    """Announces images that will be needed: they go to the registry, and to the ranges named that are up, early."""

    plan_id: Identifier
    images: Annotated[tuple[Reference, ...], Meta(min_length=1)]
    range_ids: tuple[Identifier, ...] = ()
    platform: str | None = None


class DeploymentCancelRequested(
    _Message, frozen=True, kw_only=True, omit_defaults=True, tag="deployment.cancel_requested.v1"
):
    """Command to the deployer: stop this deployment, and the engine's work for it."""

    deployment_id: Identifier
    reason: str = ""


class DeploymentRetryRequested(
    _Message, frozen=True, kw_only=True, omit_defaults=True, tag="deployment.retry_requested.v1"
):
    """Command to the deployer: do again what is missing of a failed or cancelled deployment."""

    deployment_id: Identifier


class DeploymentAdvance(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="deployment.advance.v1"):
    """The deployer to itself: look at this deployment (again). Posted with a due time it is a timer.

    It carries no state: what is due is read from the deployment's record, so one that comes late, twice or out of order
    does no harm. `pushed` and `push_failed` say what `reference` in the registry they follow from.
    """

    deployment_id: Identifier
    why: Literal["resolve", "timer", "pushed", "push_failed", "agent_started", "reconcile"] = "timer"
    reference: str | None = None
    image_id: Digest | None = None
    error: Failure | None = None


class _DeploymentEnded(_Message, frozen=True, kw_only=True, omit_defaults=True):
    deployment_id: Identifier
    range_id: Identifier
    images: tuple[ImageOutcome, ...] = ()
    seconds: float = 0.0


class DeploymentSucceeded(
    _DeploymentEnded, frozen=True, kw_only=True, omit_defaults=True, tag="deployment.succeeded.v1"
):
    """Every image is ready in the range, as its engine reports."""


class DeploymentFailed(_DeploymentEnded, frozen=True, kw_only=True, omit_defaults=True, tag="deployment.failed.v1"):
    """At least one image is not ready, with the reason beside it; `error` is the deployment's own, if it has one."""

    error: Failure | None = None


class DeploymentCancelled(
    _DeploymentEnded, frozen=True, kw_only=True, omit_defaults=True, tag="deployment.cancelled.v1"
):
    """Somebody asked to stop, and it stopped."""

    reason: str = ""


# ---- a range's inbox ------------------------------------------------------------------------------------------


class PullRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.pull_requested.v1"):
    """Command to an agent. `source` is `host:port/repository@sha256:…`; None where only a tar can come."""

    transfer_id: Identifier
    reference: Reference
    image_id: Digest
    diff_ids: tuple[Digest, ...] = ()
    source: str | None = None
    layers: tuple[Layer, ...] = ()
    total_bytes: Size = 0
    registry_token: str | None = None


class LoadOffered(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.load_offered.v1"):
    """Command to an agent: fetch the archive at `url` with the one-use `token` and load it.

    `held` are the diff IDs of the layers in the archive; `layout` is the archive's form.
    """

    transfer_id: Identifier
    reference: Reference
    image_id: Digest
    url: str
    token: str
    diff_ids: tuple[Digest, ...] = ()
    held: tuple[Digest, ...] = ()
    layout: Literal["docker", "oci"] = "docker"
    total_bytes: Size = 0


class TransferCancelled(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="transfer.cancelled.v1"):
    """Nobody wants this transfer any more: stop the engine's work for it."""

    transfer_id: Identifier
    reason: str = ""


# ---- a range's outbox -----------------------------------------------------------------------------------------


class AgentStarted(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="agent.started.v1"):
    """An agent came up (again). A changed `engine_id` means the range was recreated empty."""

    range_id: Identifier
    engine_id: str
    engine_version: str
    store: Literal["classic", "containerd"]
    platform: str
    abilities: tuple[Literal["zstd", "thin_docker", "thin_oci"], ...] = ()
    images: tuple[PresentImage, ...] = ()


class ImagesChanged(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="agent.images_changed.v1"):
    """The range's engine has other images than its agent said last: all it has now, those without a name too."""

    range_id: Identifier
    images: tuple[PresentImage, ...] = ()


class TarRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.tar_requested.v1"):
    """The pull did not work. `diff_ids` are the layers the engine has; `layout` is the archive it can load."""

    transfer_id: Identifier
    reason: Failure
    diff_ids: tuple[Digest, ...] = ()
    layout: Literal["docker", "oci"] = "docker"
    thin: bool = True


class ImageReady(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.ready.v1"):
    """The range's engine itself reports the wanted content under the wanted name."""

    transfer_id: Identifier
    image_id: Digest
    how: Arrival
    received_bytes: Size = 0
    layers_reused: Size = 0
    layers_total: Size = 0
    seconds: float = 0.0


class ImageFailed(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.failed.v1"):
    """The agent could not do it; `error.retryable` says whether trying again can help."""

    transfer_id: Identifier
    error: Failure


# ---- progress -------------------------------------------------------------------------------------------------


class TransferProgress(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="transfer.progress.v1"):
    """How far something is. The last one of a transfer has phase `done` or `failed`. Lossy by design."""

    transfer_id: str
    reference: str
    kind: Literal["push", "pull", "load", "export"]
    phase: Literal["waiting", "checking", "reading", "sending", "downloading", "extracting", "done", "failed"]
    range_id: str | None = None
    done_bytes: Size = 0
    total_bytes: Size = 0
    layers_done: Size = 0
    layers_total: Size = 0
    note: str = ""


ImageAppeared = ImageBuilt | ImageImported | ImagePromoted
DeploymentEnded = DeploymentSucceeded | DeploymentFailed | DeploymentCancelled

Message = (
    ImageBuilt
    | ImageImported
    | ImagePromoted
    | PushRequested
    | ImagePushed
    | ImagePushFailed
    | ImageDeleted
    | DeploymentRequested
    | DeploymentPlanned
    | DeploymentCancelRequested
    | DeploymentRetryRequested
    | DeploymentAdvance
    | DeploymentSucceeded
    | DeploymentFailed
    | DeploymentCancelled
    | PullRequested
    | LoadOffered
    | TransferCancelled
    | AgentStarted
    | ImagesChanged
    | TarRequested
    | ImageReady
    | ImageFailed
    | TransferProgress
)
