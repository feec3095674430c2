"""Every message type, as one tagged union.

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
Arrival = Literal["present", "retagged", "mounted", "pulled", "loaded"]
"""How an image got into a range, from cheapest to dearest."""

#: Ends a pattern. `$` alone lets a line break follow (Python's `re`); `\Z` is none of a JSON Schema's (ECMA 262).
END = r"$(?!\n)"
Digest = Annotated[str, Meta(pattern=rf"^sha256:[0-9a-f]{{64}}{END}")]
Identifier = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,127}}{END}")]
"""A range or deployment id: safe as part of a Redis key, an ACL pattern, a file name and a URL."""

Reference = Annotated[str, Meta(min_length=1, max_length=1024)]
Size = Annotated[int, Meta(ge=0)]
#: So many layers are told one by one in a progress message, which is said often.
LAYERS_TOLD = 64
#: Characters of what an agent tells of its engine's proxy.
PROXY_LIMIT = 2048


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something failed. `code` is stable (for programs); `message` says what, where, why, and what to do."""

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
    """An image that an engine has.

    `image_id` is None where the engine does not report it (containerd store); then `local_id` is the engine's own
    id. `size_bytes` is 0 where it is not known.
    """

    references: tuple[str, ...]
    diff_ids: tuple[str, ...]
    image_id: str | None = None
    local_id: str | None = None
    size_bytes: Size = 0


class Provenance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an image in the registry came from: its manifest, who had it pushed (`actor`) and which program asked
    (`source`), as far as that is known. `signed`: by a key of the operator, where signatures are checked."""

    manifest_digest: Digest
    actor: str = ""
    source: str = ""
    signed: bool = False


class ImageOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result for one image of a deployment: exactly one of `how` and `error` is set, or neither if it was
    cancelled.

    `ready_at` is set beside `how`: when the range's engine had it, by the range's clock. Deployments of one range end
    in another order than their images arrive. `not_mounted`: why layers were sent that could have been mounted.
    `not_pulled`: why an archive came, though the registry has the image.
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
    not_mounted: Failure | None = None
    not_pulled: Failure | None = None
    provenance: Provenance | None = None


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    pass


# ---- images ---------------------------------------------------------------------------------------------------


class _ImageAppeared(_Message, frozen=True, kw_only=True, omit_defaults=True):
    """`host` is the host whose engine has the image; None: it is not said, and any may be asked."""

    reference: Reference
    image_id: Digest
    size_bytes: Size = 0
    platform: str = "linux/amd64"
    origin: str = ""
    push: Push = "auto"
    host: Identifier | None = None


class ImageBuilt(_ImageAppeared, frozen=True, kw_only=True, omit_defaults=True, tag="image.built.v1"):
    """The host engine built an image. `origin` is the context it was built from."""


class ImageImported(_ImageAppeared, frozen=True, kw_only=True, omit_defaults=True, tag="image.imported.v1"):
    """The host engine loaded or pulled an image. `origin` is the archive's name or the reference pulled."""


class ImagePromoted(_ImageAppeared, frozen=True, kw_only=True, omit_defaults=True, tag="image.promoted.v1"):
    """A container was committed, or an image got another name. `origin` is the container or the old name."""


class PushRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.push_requested.v1"):
    """Command to the registry-pusher: push `reference`.

    Without `image_id`, push what the host engine has under that name now. `host`: from that host's engine; None: from
    the host that has it. `asked` are hosts that were asked before and do not have it.
    """

    reference: Reference
    image_id: Digest | None = None
    why: PushReason = "manual"
    host: Identifier | None = None
    asked: Annotated[tuple[Identifier, ...], Meta(max_length=1000)] = ()


class ImagePushed(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.pushed.v1"):
    """The image is complete in the registry, as `repository@manifest_digest` and `repository:tag`.

    `actor` is who asked for the push, where that is known, and `source` the program that asked (`cli@host`). `host`:
    whose engine it came from.
    """

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
    actor: str = ""
    source: str = ""
    host: Identifier | None = None


class ImagePushFailed(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.push_failed.v1"):
    """The push failed, and another try will not help (or there were enough tries)."""

    reference: Reference
    error: Failure
    image_id: Digest | None = None


class PushSkipped(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.push_skipped.v1"):
    """An operator decided against a push that a prompt asked about. A newer image of that name asks again."""

    reference: Reference
    prompt_id: Identifier
    image_id: Digest | None = None


class ImageDeleted(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.deleted.v1"):
    """The registry no longer names the image. `collected` is False while garbage collection is still to come.

    `freed_bytes` are those that a collection will free then: what no other tag needs. Once they are freed the event
    comes again, with `collected` and the bytes that were freed. `tags` are those that went with a digest.
    """

    reference: Reference
    manifest_digest: Digest
    freed_bytes: Size = 0
    collected: bool = False
    tags: tuple[str, ...] = ()


class ImageDeleteRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.delete_requested.v1"):
    """Command to the collector: delete this tag, or every tag of a digest.

    With `manifest_digest` only if it still names that content. `force` deletes what a deployment, a plan or a range
    still needs. `dry_run` deletes nothing; the answer is `image.delete_planned`.
    """

    reference: Reference
    manifest_digest: Digest | None = None
    force: bool = False
    dry_run: bool = False


class DeletionPlanned(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.delete_planned.v1"):
    """What a deletion would do; nothing was changed.

    tags         that would go: the one that was named, or all of a digest
    siblings     that name the same content in the same repository, and stay
    needed_by    open deployments, plans and ranges for whose sake it is refused without force
    held_by      ranges that have the content, and keep it
    freed_later_bytes    what a collection frees afterwards; until then it can be brought back
    freed_now_bytes      what the deletion itself frees
    """

    reference: Reference
    manifest_digest: Digest
    tags: tuple[str, ...] = ()
    siblings: tuple[str, ...] = ()
    needed_by: tuple[str, ...] = ()
    held_by: tuple[str, ...] = ()
    freed_now_bytes: Size = 0
    freed_later_bytes: Size = 0


class ImageDeleteRefused(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.delete_refused.v1"):
    """The tag was not deleted; `error` says why."""

    reference: Reference
    error: Failure


# ---- images of the host's engine -----------------------------------------------------------------------------


class AdoptRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.adopt_requested.v1"):
    """Command to the registry-pusher: take up images that are there already and that no event told of.

    `patterns` fit full names (`docker.io/team/*`) or familiar ones (`nginx:*`). Of the host's engine, images that the
    registry lacks are pushed; in the registry, images that the read model lacks are announced, and those under
    upstream's own names (`nginx` for `library/nginx`) are mounted under ours. `dry_run` changes nothing. `host`: of
    that host's engine; None: of any one.
    """

    patterns: Annotated[tuple[str, ...], Meta(min_length=1, max_length=100)]
    origin: Literal["host", "registry", "both"] = "both"
    dry_run: bool = False
    host: Identifier | None = None


class Adoption(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image that was looked at.

    found_as       what it is called where it was found, if that is not `reference`
    state          new: it is taken up; present: it was already; other: that name has other content in the registry, and
                   keeps it; unusable: `note` says why
    missing_bytes  of its layers, what the registry lacks, as far as that is known before the push
    """

    reference: str
    origin: Literal["host", "registry"]
    state: Literal["new", "present", "other", "unusable"]
    found_as: str = ""
    size_bytes: Size = 0
    missing_bytes: Size = 0
    note: str = ""


class ImagesAdopted(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.adopted.v1"):
    """Answer to that. `images` lists at most 1000; `left` more are new: the same command again takes them up.

    `missing_bytes` counts a layer that several images share once. `estimated_seconds` is from the speed of the last
    pushes, None while none was seen. Pushes follow as commands.
    """

    dry_run: bool = False
    new: Size = 0
    present: Size = 0
    left: Size = 0
    size_bytes: Size = 0
    missing_bytes: Size = 0
    estimated_seconds: float | None = None
    images: tuple[Adoption, ...] = ()
    error: Failure | None = None


class ReclaimRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.reclaim_requested.v1"):
    """Command to the registry-pusher: free the host engine's copies of images that the registry has whole.

    `pushed` and `pressure` are asked by the services themselves and touch only what a rule allows. `host`: of that
    host's engine; None: of any one.
    """

    patterns: Annotated[tuple[str, ...], Meta(min_length=1, max_length=100)]
    why: Literal["manual", "pushed", "pressure"] = "manual"
    dry_run: bool = False
    host: Identifier | None = None


class Reclaim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one name of the host's engine, and why. A name beside which others keep the content frees 0."""

    reference: str
    freed: bool
    reason: str
    freed_bytes: Size = 0


class ImagesReclaimed(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.reclaimed.v1"):
    """Answer to that: a verdict on each name that the patterns fit, at most 1000."""

    dry_run: bool = False
    freed_bytes: Size = 0
    images: tuple[Reclaim, ...] = ()
    error: Failure | None = None


class FetchRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.fetch_requested.v1"):
    """Command to the registry-pusher: bring an image back from the registry to a host's engine (None: any)."""

    reference: Reference
    host: Identifier | None = None


class ImageFetched(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.fetched.v1"):
    """Answer to that. `present`: the host's engine had it."""

    reference: Reference
    image_id: Digest | None = None
    present: bool = False
    seconds: float = 0.0
    error: Failure | None = None


# ---- the registry's store -------------------------------------------------------------------------------------


class DiskPressure(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="registry.disk_pressure.v1"):
    """Alarm: a disk has less than `limit_bytes` free (`low`). It comes again, with `low` false, once there is room.

    It is the disk of the registry's storage, or that of the engine of `host`.
    """

    low: bool
    free_bytes: Size
    total_bytes: Size
    limit_bytes: Size
    host: Identifier | None = None


class CollectProgress(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="registry.collect_progress.v1"):
    """How far a collection is: blobs of its phase. Lossy by design; `registry.collected` is its end.

    `collection_id` is the id of the command.
    """

    collection_id: str
    phase: Literal["marking", "scrubbing", "quarantining", "freeing", "measuring"]
    done: Size = 0
    total: Size = 0
    done_bytes: Size = 0


class CollectRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="registry.collect_requested.v1"):
    """Command to the collector: collect what nothing references. `scrub` re-hashes all content first.

    `keep_seconds` overrides how long content stays in quarantine, from where it can be brought back: 600 at least.
    """

    dry_run: bool = False
    scrub: bool = False
    keep_seconds: Annotated[float, Meta(ge=0)] | None = None


class RegistryCollected(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="registry.collected.v1"):
    """A collection ended. Of a dry run only the candidates count. `damaged` are digests and tags, at most 100."""

    dry_run: bool = False
    candidates: Size = 0
    candidate_bytes: Size = 0
    quarantined: Size = 0
    restored: Size = 0
    removed: Size = 0
    freed_bytes: Size = 0
    damaged: tuple[str, ...] = ()
    seconds: float = 0.0
    error: Failure | None = None


class RestoreRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="registry.restore_requested.v1"):
    """Command to the collector: bring these back from quarantine, each manifest with all that it names."""

    digests: Annotated[tuple[Digest, ...], Meta(min_length=1)]


class RegistryRestored(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="registry.restored.v1"):
    """Answer to that. `missing` were not in quarantine and are not there."""

    restored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    error: Failure | None = None


class CheckRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="registry.check_requested.v1"):
    """Command to the collector: hash these blobs, and set aside what is damaged so that it can be uploaded again."""

    digests: Annotated[tuple[Digest, ...], Meta(min_length=1)]


class RetentionVerdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the retention rules say of one tag, and why. `freed_bytes` counts for one that is deleted."""

    reference: str
    manifest_digest: str
    keep: bool
    reason: str
    freed_bytes: Size = 0


class RetentionRequested(
    _Message, frozen=True, kw_only=True, omit_defaults=True, tag="registry.retention_requested.v1"
):
    """Command to the collector: apply the retention rules; with `dry_run` only say what they would delete."""

    dry_run: bool = False


class RetentionPlanned(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="registry.retention_planned.v1"):
    """Answer to that: a verdict on each tag, those to be deleted first, at most 1000. Deletions follow as commands."""

    dry_run: bool = False
    kept: Size = 0
    deleted: Size = 0
    freed_bytes: Size = 0
    verdicts: tuple[RetentionVerdict, ...] = ()
    error: Failure | None = None


# ---- deployments ----------------------------------------------------------------------------------------------


class DeploymentRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="deployment.requested.v1"):
    """Command to the deployer: bring `images` to the engine of `range_id`. `engine_url` for a range without agent.

    `host`: the host whose agent pool drives that engine; None: the first pool that finds it.
    """

    deployment_id: Identifier
    range_id: Identifier
    images: Annotated[tuple[Reference, ...], Meta(min_length=1)]
    platform: str | None = None
    engine_url: str | None = None
    priority: Annotated[int, Meta(ge=0, le=9)] = 5
    host: Identifier | None = None


class DeploymentPlanned(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="deployment.planned.v1"):
    """Announcement of images that will be needed: they are pushed, and deployed early to the named ranges that are
    up.
    """

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
    """Command to the deployer: repeat what is missing of a failed or cancelled deployment."""

    deployment_id: Identifier


class DeploymentAdvance(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="deployment.advance.v1"):
    """The deployer to itself: evaluate this deployment (again). Posted with a due time it is a timer.

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
    """The deployment was cancelled on request, and has stopped."""

    reason: str = ""


# ---- a range's inbox ------------------------------------------------------------------------------------------


class PullRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.pull_requested.v1"):
    """Command to an agent. `source` is `host:port/repository@sha256:…`; None where only a tar can come.

    `mounted`: the host shows the range all layers as folders, so that none of them has to be pulled.
    """

    transfer_id: Identifier
    reference: Reference
    image_id: Digest
    diff_ids: tuple[Digest, ...] = ()
    source: str | None = None
    layers: tuple[Layer, ...] = ()
    total_bytes: Size = 0
    registry_token: str | None = None
    mounted: bool = False


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


class SaveRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.save_requested.v1"):
    """Command to an agent: send the engine's `docker save` of an image to `url` (PUT), with the one-use `token`.

    For an image that neither the registry nor a host's engine has whole any more. An agent that cannot sends DELETE.
    """

    transfer_id: Identifier
    reference: Reference
    image_id: Digest
    url: str
    token: str


class TransferCancelled(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="transfer.cancelled.v1"):
    """This transfer was cancelled: stop the engine's work for it."""

    transfer_id: Identifier
    reason: str = ""


# ---- a range's outbox -----------------------------------------------------------------------------------------


class AgentStarted(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="agent.started.v1"):
    """An agent came up (again). A changed `engine_id` means the range was recreated empty.

    `mounts_layers`: its engine takes layers as folders that the host mounts for it. `proxy`, `no_proxy`: the HTTP proxy
    through which the engine pulls, without its password, and what is excepted. `host`: the host that it runs on, which
    the range gateway of that host says in its place. `gives_images`: the agent knows `image.save_requested`.
    `unreadable_layers`: diff IDs of mounted layers that images of the engine stand on, and that are not mounted.
    """

    range_id: Identifier
    engine_id: str
    engine_version: str
    store: Literal["classic", "containerd"]
    platform: str
    abilities: tuple[Literal["zstd", "thin_docker", "thin_oci"], ...] = ()
    images: tuple[PresentImage, ...] = ()
    mounts_layers: bool = False
    proxy: Annotated[str, Meta(max_length=PROXY_LIMIT)] = ""
    no_proxy: Annotated[str, Meta(max_length=PROXY_LIMIT)] = ""
    host: Identifier | None = None
    gives_images: bool = False
    unreadable_layers: tuple[Digest, ...] = ()


class ImagesChanged(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="agent.images_changed.v1"):
    """The range's engine has other images than its agent reported last. Lists all of them, those without a name too.

    `unreadable_layers` as in `agent.started`; a change of these alone is told as well.
    """

    range_id: Identifier
    images: tuple[PresentImage, ...] = ()
    unreadable_layers: tuple[Digest, ...] = ()


class TarRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.tar_requested.v1"):
    """The pull failed: the agent asks for an archive.

    `diff_ids` are layers the engine has; `layout` is what it can load. `raw` are those of them that a containerd store
    has uncompressed, in whatever form the registry has them: the archive has to name them so.
    """

    transfer_id: Identifier
    reason: Failure
    diff_ids: tuple[Digest, ...] = ()
    layout: Literal["docker", "oci"] = "docker"
    thin: bool = True
    raw: tuple[Digest, ...] = ()


class ImageReady(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.ready.v1"):
    """The range's engine reports the desired content under the desired name.

    `not_mounted`: the layers were mounted for the range, and why its engine did not take them.
    """

    transfer_id: Identifier
    image_id: Digest
    how: Arrival
    received_bytes: Size = 0
    layers_reused: Size = 0
    layers_total: Size = 0
    seconds: float = 0.0
    not_mounted: Failure | None = None


class ImageFailed(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="image.failed.v1"):
    """The agent could not bring the image; `error.retryable` says whether another try can help."""

    transfer_id: Identifier
    error: Failure


class LayersReleased(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="layers.released.v1"):
    """The range's engine no longer uses these folders: folder name → transfer that it was shown for."""

    range_id: Identifier
    grants: dict[str, Identifier] = {}


# ---- a host's inbox, and the answers --------------------------------------------------------------------------


class HostLookRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="host.look_requested.v1"):
    """Question to a host's registry-pusher: what does the engine there have under this name now?

    With `image_id`, or `diff_ids` where an engine does not know that: this content, by its id if its name has moved.
    The answer is a key of the host under `look_id`, which expires.
    """

    look_id: Identifier
    reference: Reference
    image_id: Digest | None = None
    diff_ids: tuple[Digest, ...] = ()


class MountRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="layers.mount_requested.v1"):
    """Command to a host's layer-mounter: show these layers to the range, whose engine was `engine_id` when it asked.

    `transfer_id` is the grant that holds them until the range releases it. An engine on a classic store gets each
    layer's tar-split beside its files, one on containerd's store the layer's blob. `reference` is for progress, which
    is told while compressed layers are unpacked.
    """

    transfer_id: Identifier
    range_id: Identifier
    layers: Annotated[tuple[Layer, ...], Meta(min_length=1)]
    engine_id: str | None = None
    store: Literal["classic", "containerd"] = "containerd"
    reference: str = ""


class UnmountRequested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="layers.unmount_requested.v1"):
    """Command to a host's layer-mounter: hide what this transfer asked for; the range was never told of it."""

    transfer_id: Identifier
    range_id: Identifier


class LayersMounted(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="layers.mounted.v1"):
    """The range sees all layers that this transfer asked for."""

    transfer_id: Identifier
    range_id: Identifier
    seconds: float = 0.0


class MountFailed(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="layers.mount_failed.v1"):
    """The layers cannot be mounted; the range sees none of them for this transfer."""

    transfer_id: Identifier
    range_id: Identifier
    error: Failure


# ---- a range's gateway ----------------------------------------------------------------------------------------


class RangeLimited(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="range.limited.v1"):
    """A range exceeds a limit of its gateway: it is slowed, or (`cut_off`) disconnected for a while.

    `limit` names the limit; `times` is how often it was exceeded since the gateway started.
    """

    range_id: Identifier
    limit: Annotated[str, Meta(max_length=64)]
    times: Size = 0
    cut_off: bool = False


class RangeContested(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="range.contested.v1"):
    """Two agents speak for one range, on these engines: its deployments wait. `resolved`: one alone was seen since."""

    range_id: Identifier
    engine_ids: tuple[Annotated[str, Meta(max_length=128)], ...]
    since: datetime
    resolved: bool = False


# ---- progress -------------------------------------------------------------------------------------------------


LayerPhase = Literal["waiting", "running", "extracting", "done", "reused"]


class LayerProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far one layer of a transfer is. `digest` is the first 12 digits of the blob's digest, as engines name it."""

    digest: Annotated[str, Meta(max_length=64)]
    phase: LayerPhase = "waiting"
    done_bytes: Size = 0
    total_bytes: Size = 0


class TransferProgress(_Message, frozen=True, kw_only=True, omit_defaults=True, tag="transfer.progress.v1"):
    """Progress of a push or transfer. The last one has the phase `done` or `failed`. Lossy by design.

    `layers` are those that are told one by one, the first LAYERS_TOLD; none where layers cannot be told apart.
    """

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
    layers: Annotated[tuple[LayerProgress, ...], Meta(max_length=LAYERS_TOLD)] = ()


ImageAppeared = ImageBuilt | ImageImported | ImagePromoted
DeploymentEnded = DeploymentSucceeded | DeploymentFailed | DeploymentCancelled

Message = (
    ImageBuilt
    | ImageImported
    | ImagePromoted
    | PushRequested
    | ImagePushed
    | ImagePushFailed
    | PushSkipped
    | ImageDeleted
    | ImageDeleteRequested
    | ImageDeleteRefused
    | CollectRequested
    | RegistryCollected
    | DeletionPlanned
    | RestoreRequested
    | RegistryRestored
    | CheckRequested
    | RetentionRequested
    | RetentionPlanned
    | AdoptRequested
    | ImagesAdopted
    | ReclaimRequested
    | ImagesReclaimed
    | FetchRequested
    | ImageFetched
    | DiskPressure
    | CollectProgress
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
    | SaveRequested
    | TransferCancelled
    | AgentStarted
    | ImagesChanged
    | TarRequested
    | ImageReady
    | ImageFailed
    | LayersReleased
    | HostLookRequested
    | MountRequested
    | UnmountRequested
    | LayersMounted
    | MountFailed
    | RangeLimited
    | RangeContested
    | TransferProgress
)
