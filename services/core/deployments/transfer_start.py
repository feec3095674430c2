"""Start of a transfer: layers that the host can mount are mounted first, then the agent is told to pull.

The agent of a range with mounted layers pulls all the same: its engine finds the layers there and fetches manifest and
config alone. Whatever does not work on the way to that, the pull is told without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from events.messages import Failure, LayersMounted, MountFailed, MountRequested, PullRequested, UnmountRequested
from services.core.deployments.deployment import Deployment, ImageState, Policy, State, parse_transfer_id
from services.core.deployments.facts import RegistryImage
from services.core.deployments.state_table import Cause
from services.core.deployments.transition_builder import CommandEffect, MountEffect, Transition, TransitionBuilder
from services.core.images.image import Store
from services.core.mounts.layer_mounts import unmountable
from services.errors import LayersNotMounted

_LATE = Failure(
    code="mount_stalled", message="the layers were not mounted in time: see the layer-mounter", retryable=True
)

_UNKNOWN = Failure(code="no_layers", message="the registry does not say which layers the image has", retryable=True)


def admit(
    deployment: Deployment,
    found: Mapping[int, RegistryImage | None],
    now: datetime,
    policy: Policy,
    *,
    mountable: Store | None = None,
) -> Transition:
    """Slots became free for these images. What the registry no longer has goes by tar.

    mountable  the store of the range's engine, if the host has a layer-mounter and the engine takes mounted layers
    """
    draft = TransitionBuilder(deployment, now, policy)
    for index, registry in found.items():
        image = draft.images[index]
        if not deployment.open or not image.waits_for_slot or image.image_id is None:
            continue
        if image.by_tar or registry is None:
            _begin(draft, index, registry, "slot free, by tar")
            continue
        if mountable is not None and image.not_mounted is None:
            why_not = unmountable(registry.layers)
            if why_not is None:
                _mount(draft, index, registry, mountable)
                continue
            draft.change(index, not_mounted=LayersNotMounted(why_not, code="layers_unmountable").failure())
        _begin(draft, index, registry, "slot free")
    return draft.done()


def mount_ended(
    deployment: Deployment,
    message: LayersMounted | MountFailed,
    registry: RegistryImage | None,
    now: datetime,
    policy: Policy,
) -> Transition:
    """The layer-mounter answered for a transfer. What comes too late, or for nothing, is to be hidden again."""
    draft = TransitionBuilder(deployment, now, policy)
    parsed = parse_transfer_id(message.transfer_id)
    index = parsed[1] if parsed is not None and parsed[1] < len(deployment.images) else None
    image = deployment.images[index] if index is not None else None
    if index is None or image is None or image.transfer_id != message.transfer_id:
        return Transition(deployment)
    waits = image.state == "mounting" and deployment.open
    if waits and isinstance(message, MountFailed):
        pull_unmounted(draft, index, registry, message.error)
    elif waits and registry is not None:
        draft.change(index, mounted=True)
        _tell(draft, index, registry, "layers mounted")
    elif isinstance(message, LayersMounted) and not image.mounted:
        draft.say(MountEffect(UnmountRequested(transfer_id=message.transfer_id, range_id=deployment.range_id)))
        if waits:
            pull_unmounted(draft, index, registry, _UNKNOWN)
    return draft.done()


def is_overdue(image: ImageState, now: datetime, policy: Policy, heard_at: datetime | None = None) -> bool:
    """Whether the wait for the layer-mounter was long enough.

    It is a short one, but for compressed layers: while they are unpacked the layer-mounter tells of it (`heard_at`),
    and then the wait may take as long as a transfer may stand still.
    """
    begun = image.begun_at or image.since
    heard = max(begun, heard_at or begun)
    silent, late = policy.mount_seconds, policy.standing_seconds(image.size_bytes)
    return now - heard >= timedelta(seconds=silent) or now - begun >= timedelta(seconds=late)


def pull_unmounted(
    draft: TransitionBuilder, index: int, registry: RegistryImage | None, error: Failure = _LATE
) -> None:
    """Have the layers pulled, with a remark that says why."""
    draft.note(f"the layers of {draft.images[index].reference} are pulled: {error.message}")
    draft.change(index, not_mounted=error)
    _tell(draft, index, registry, "layers not mounted")


def _mount(draft: TransitionBuilder, index: int, registry: RegistryImage, store: Store) -> None:
    deployment, transfer_id = draft.deployment, draft.transfer_id(index)
    _start(draft, index, "slot free, to be mounted", "mounting", draft.next_check())
    request = MountRequested(
        transfer_id=transfer_id,
        range_id=deployment.range_id,
        layers=registry.layers,
        engine_id=deployment.engine_id,
        store=store,
        reference=draft.images[index].reference,
    )
    draft.say(MountEffect(request))


def _begin(draft: TransitionBuilder, index: int, registry: RegistryImage | None, cause: Cause) -> None:
    by_tar = cause == "slot free, by tar"
    _start(draft, index, cause, "falling_back" if by_tar else "pulling", draft.next_check(), by_tar=by_tar)
    _command(draft, index, registry)


def _start(
    draft: TransitionBuilder, index: int, cause: Cause, state: State, deadline: datetime, *, by_tar: bool = False
) -> None:
    """Give the image its slot."""
    now = draft.now
    draft.move(
        index,
        cause,
        state,
        by_tar=by_tar,
        transfer_id=draft.transfer_id(index),
        started_at=draft.images[index].started_at or now,
        begun_at=now,
        heard_at=now,
        advanced_at=now,
        deadline=deadline,
    )


def _tell(draft: TransitionBuilder, index: int, registry: RegistryImage | None, cause: Cause) -> None:
    """Move from mounting to pulling: the agent's time begins now."""
    now = draft.now
    draft.move(index, cause, "pulling", begun_at=now, heard_at=now, advanced_at=now, deadline=draft.next_check())
    _command(draft, index, registry)


def _command(draft: TransitionBuilder, index: int, registry: RegistryImage | None) -> None:
    image = draft.images[index]
    request = PullRequested(
        transfer_id=draft.transfer_id(index),
        reference=image.reference,
        image_id=image.image_id or "",
        diff_ids=image.diff_ids,
        source=None if image.by_tar else image.source,
        layers=registry.layers if registry else (),
        total_bytes=image.size_bytes,
        mounted=image.mounted,
    )
    draft.say(CommandEffect(request))
