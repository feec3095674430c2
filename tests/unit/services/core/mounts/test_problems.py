"""What is told of mounted layers that cannot be read."""

from events.messages import Layer
from services.core.mounts.problems import (
    MountProblem,
    ReportedLayers,
    UnreadableLayer,
    blob_problem,
    unreadable,
    unreadable_layers,
)

ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "abc")
LAYER = Layer(digest=ONE, diff_id=ONE, size_bytes=1024)


def test_a_blob_is_as_long_as_its_layer() -> None:
    """One that is gone, and one that was cut off, are told with the command that helps."""
    assert blob_problem(LAYER, 1024) is None
    assert "images push" in str(blob_problem(LAYER, None))
    assert "512 bytes, not 1024" in str(blob_problem(LAYER, 512))
    packed = Layer(digest=TWO, diff_id=ONE, size_bytes=9, codec="gzip")
    assert "what was unpacked of it can be read" in str(blob_problem(packed, None))


def test_host_and_agent_are_heard() -> None:
    """The host knows why; what the agent alone sees, the range did itself, or nobody mounts."""
    problems = [
        MountProblem(range_id="r-1", diff_id=ONE, why="its blob is gone"),
        MountProblem(range_id="r-2", diff_id=THREE, why="another range's"),
        MountProblem(range_id="r-1", diff_id="", why="the seed"),
    ]
    found = unreadable("r-1", {"h-1": problems}, (ONE, TWO), mounter_runs=True)
    assert found.keys() == {ONE, TWO}
    assert found[ONE] == "on host h-1, its blob is gone"
    assert "restart the range's container" in found[TWO]
    assert "layer-mounter" in unreadable("r-1", {}, (TWO,), mounter_runs=False)[TWO]


def test_a_host_that_nobody_knows_is_none() -> None:
    """A range may name any; one that mounts layers is known, and so is one that reported."""
    lost = MountProblem(range_id="r-1", diff_id=ONE, why="its blob is gone")
    seed = MountProblem(range_id="r-1", diff_id="", why="the seed")
    reported = [ReportedLayers(f"r-{host}", host, (TWO,)) for host in ("h-1", "h-2", "made-up")]
    assert list(unreadable_layers({"h-1": [lost, seed]}, reported, {"h-2"})) == [
        UnreadableLayer("h-1", "layer-mounter", "r-1", ONE),
        UnreadableLayer("h-1", "agent", "r-h-1", TWO),
        UnreadableLayer("h-2", "agent", "r-h-2", TWO),
        UnreadableLayer("", "agent", "r-made-up", TWO),
    ]
