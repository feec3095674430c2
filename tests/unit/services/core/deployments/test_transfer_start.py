"""Layers that are mounted before the agent is told, and what happens where they are not."""

from __future__ import annotations

import dataclasses

from events.messages import (
    Failure,
    ImageFailed,
    ImageReady,
    Layer,
    LayersMounted,
    MountFailed,
    MountRequested,
    PullRequested,
    TarRequested,
    UnmountRequested,
)
from services.core.deployments.facts import ImageFacts
from services.core.deployments.transfer_start import admit, mount_ended
from services.core.deployments.transition_builder import (
    CommandEffect,
    MountEffect,
)
from services.core.deployments.transitions import (
    agent_back,
    agent_said,
    cancelled,
)
from services.core.mounts.layer_mounts import LAYERS_LIMIT
from tests.unit.services.core.deployments.stories import (
    BROKEN,
    DOWN,
    HOST,
    LAYER,
    NOW,
    OTHER,
    POLICY,
    REGISTRY,
    UP,
    WANTED,
    later,
    mounting,
    only,
    queued,
    said,
    seen,
)

MOUNTED = LayersMounted(transfer_id="d1.0.1", range_id="r1")


NOT_MOUNTED = MountFailed(
    transfer_id="d1.0.1", range_id="r1", error=Failure(code="layers_not_mounted", message="no room")
)


def test_layers_are_mounted_before_the_agent_is_told() -> None:
    """The layer-mounter is asked first; the agent's request says that the layers are there."""
    step = admit(queued(), {0: REGISTRY}, NOW, POLICY, mountable="containerd")
    (asked_for,) = (effect.message for effect in step.effects if isinstance(effect, MountEffect))
    assert isinstance(asked_for, MountRequested)
    assert (asked_for.transfer_id, asked_for.layers) == ("d1.0.1", REGISTRY.layers)
    assert not said(step, CommandEffect)
    step = mount_ended(step.deployment, MOUNTED, REGISTRY, NOW, POLICY)
    (command,) = (effect.message for effect in step.effects if isinstance(effect, CommandEffect))
    assert isinstance(command, PullRequested)
    assert (command.mounted, command.layers, only(step.deployment).state) == (True, REGISTRY.layers, "pulling")


def test_what_cannot_be_mounted_is_pulled_and_the_reason_is_kept() -> None:
    """Also in later attempts nothing is mounted; the outcome says why."""
    step = mount_ended(mounting(), NOT_MOUNTED, REGISTRY, NOW, POLICY)
    (command,) = (effect.message for effect in step.effects if isinstance(effect, CommandEffect))
    assert isinstance(command, PullRequested)
    assert (command.mounted, only(step.deployment).state) == (False, "pulling")
    broken = agent_said(step.deployment, ImageFailed(transfer_id="d1.0.1", error=BROKEN), NOW, POLICY).deployment
    again = seen(broken, ImageFacts(host=HOST, registry=REGISTRY), at=later(60)).deployment
    step = admit(again, {0: REGISTRY}, later(60), POLICY, mountable="containerd")
    assert only(step.deployment).state == "pulling"
    ready = ImageReady(transfer_id="d1.0.2", image_id=WANTED, how="pulled")
    (outcome,) = (only(agent_said(step.deployment, ready, later(61), POLICY).deployment).outcome(),)
    assert outcome.not_mounted == NOT_MOUNTED.error


def test_a_layer_mounter_that_says_nothing_is_waited_for_some_seconds() -> None:
    """Then the layers are pulled, and what it mounts later is hidden again."""
    step = seen(mounting(), ImageFacts(registry=REGISTRY), at=later(POLICY.mount_seconds + 1))
    image = only(step.deployment)
    assert (image.state, image.mounted) == ("pulling", False)
    assert image.not_mounted is not None
    late = mount_ended(step.deployment, MOUNTED, REGISTRY, later(20), POLICY)
    assert [effect.message for effect in late.effects if isinstance(effect, MountEffect)] == [
        UnmountRequested(transfer_id="d1.0.1", range_id="r1")
    ]
    assert late.deployment == step.deployment


def test_a_repeated_answer_of_the_layer_mounter_changes_nothing() -> None:
    """It may be said twice: what the agent was told of stays mounted."""
    told = mount_ended(mounting(), MOUNTED, REGISTRY, NOW, POLICY).deployment
    assert mount_ended(told, MOUNTED, REGISTRY, later(1), POLICY).effects == ()


def test_layers_mounted_for_a_deployment_that_was_cancelled_are_hidden_again() -> None:
    """Nobody was told of them."""
    ended = cancelled(mounting(), "", NOW, POLICY).deployment
    step = mount_ended(ended, MOUNTED, REGISTRY, NOW, POLICY)
    assert [type(effect) for effect in step.effects] == [MountEffect]


def test_layers_that_the_registry_does_not_know_any_more_are_not_told_of() -> None:
    """The agent has to know their sizes and digests; the tar is what is left."""
    step = mount_ended(mounting(), MOUNTED, None, NOW, POLICY)
    assert {type(effect) for effect in step.effects} >= {MountEffect, CommandEffect}
    assert only(step.deployment).mounted is False


def test_a_range_cannot_speak_of_what_it_was_not_told() -> None:
    """A transfer id can be guessed: while layers are being mounted, only content counts."""
    deployment = mounting()
    for message in (ImageFailed(transfer_id="d1.0.1", error=BROKEN), TarRequested(transfer_id="d1.0.1", reason=BROKEN)):
        assert agent_said(deployment, message, NOW, POLICY).deployment == deployment


def test_what_the_host_did_not_mount_is_not_called_mounted() -> None:
    """Whatever a range says of it; what the host mounted is."""
    ready = ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="mounted")
    pulled = mount_ended(mounting(), NOT_MOUNTED, REGISTRY, NOW, POLICY).deployment
    told = mount_ended(mounting(), MOUNTED, REGISTRY, NOW, POLICY).deployment
    for deployment, how in ((pulled, "pulled"), (mounting(), "pulled"), (told, "mounted")):
        assert only(agent_said(deployment, ready, NOW, POLICY).deployment).how == how


def test_compressed_layers_are_mounted_as_well() -> None:
    """While they are unpacked the layer-mounter tells of it, and is waited for: not for ever."""
    packed = dataclasses.replace(REGISTRY, layers=(Layer(digest=OTHER, diff_id=LAYER, size_bytes=10, codec="zstd"),))
    step = admit(queued(), {0: packed}, NOW, POLICY, mountable="containerd")
    (asked_for,) = (effect.message for effect in step.effects if isinstance(effect, MountEffect))
    assert isinstance(asked_for, MountRequested)
    assert (asked_for.layers, asked_for.reference) == (packed.layers, "docker.io/library/app:1")
    limit = POLICY.standing_seconds(packed.size_bytes)
    for seconds, heard, state in ((60, 50, "mounting"), (60, 20, "pulling"), (limit + 1, limit, "pulling")):
        facts = ImageFacts(registry=packed, heard_at=later(heard), advanced_at=later(heard))
        assert only(seen(step.deployment, facts, at=later(seconds)).deployment).state == state


def test_layers_that_cannot_be_mounted_are_pulled() -> None:
    """It is said where they could have been mounted, and where they were sent."""
    many = tuple(Layer(digest=LAYER, diff_id=LAYER, size_bytes=10) for _ in range(LAYERS_LIMIT + 1))
    step = admit(queued(), {0: dataclasses.replace(REGISTRY, layers=many)}, NOW, POLICY, mountable="containerd")
    image = only(step.deployment)
    assert (image.state, image.not_mounted and image.not_mounted.code) == ("pulling", "layers_unmountable")
    assert only(admit(queued(), {0: REGISTRY}, NOW, POLICY).deployment).not_mounted is None
    pulled = ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="pulled")
    present = ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="present")
    for ready, why in ((pulled, image.not_mounted), (present, None)):
        assert only(agent_said(step.deployment, ready, NOW, POLICY).deployment).not_mounted == why


def test_an_image_that_is_being_mounted_meets_what_a_transfer_meets() -> None:
    """The range goes, comes back as another, is of another platform, or has the content already."""
    gone = seen(mounting(), ImageFacts(registry=REGISTRY), agent=DOWN, at=later(POLICY.check_seconds + 1)).deployment
    gone = seen(gone, ImageFacts(registry=REGISTRY), agent=DOWN, at=later(POLICY.agent_grace_seconds + 90)).deployment
    assert only(gone).state == "failed"
    known = agent_back(mounting(), "e1", NOW, POLICY).deployment
    assert only(agent_back(known, "e2", NOW, POLICY).deployment).state == "resolving"
    settled = agent_back(known, "e1", NOW, dataclasses.replace(POLICY, recreations=0)).deployment
    assert only(agent_back(settled, "e2", NOW, dataclasses.replace(POLICY, recreations=0)).deployment).state == "failed"
    other = seen(
        mounting(), ImageFacts(registry=REGISTRY), agent=dataclasses.replace(UP, platform="linux/arm64")
    ).deployment
    assert only(other).state == "failed"
    ready = agent_said(mounting(), ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="present"), NOW, POLICY)
    assert only(ready.deployment).state == "ready"
