"""Claims on a deployment's id: what makes two requests the same."""

from __future__ import annotations

from events.bus import Record
from events.messages import DeploymentRequested
from events.records import Key
from services.core.deployments.idempotency import Claim


def wanting(*images: str, range_id: str = "r1", priority: int = 5, **more: str) -> DeploymentRequested:
    return DeploymentRequested(deployment_id="d1", range_id=range_id, images=images, priority=priority, **more)


def test_a_claim_is_the_same_however_images_are_written_and_however_urgent_it_is() -> None:
    """Full names count, each once; the priority does not."""
    assert Claim.of(wanting("app:1", "b")) == Claim.of(
        wanting("docker.io/library/app:1", "b:latest", "app:1", priority=9)
    )


def test_a_claim_is_another_with_anything_else() -> None:
    """Images, their order, range, platform, the engine's place."""
    others = (
        wanting("app:2", "b"),
        wanting("b", "app:1"),
        wanting("app:1", "b", range_id="r2"),
        wanting("app:1", "b", platform="linux/arm64"),
        wanting("app:1", "b", engine_url="tcp://r1:2375"),
    )
    assert Claim.of(wanting("app:1", "b")) not in {Claim.of(other) for other in others}


def test_a_claim_is_written_only_where_there_is_none() -> None:
    """And read as it was written."""
    claim, key = Claim.of(wanting("app:1")), Key("key", Claim)
    write = claim.write(key)
    assert write.expected == 0
    assert write.value is not None
    assert key.read(Record(write.value, 1)).value == claim
