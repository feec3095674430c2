"""What is told of mounted layers that cannot be read."""

from events.messages import Layer
from services.core.mounts.problems import MountProblem, blob_problem, unreadable

ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "abc")
LAYER = Layer(digest=ONE, diff_id=ONE, size_bytes=1024)


def test_a_blob_is_as_long_as_its_layer() -> None:
    """One that is gone, and one that was cut off, are told with the command that helps."""
    assert blob_problem(LAYER, 1024) is None
    assert "images push" in str(blob_problem(LAYER, None))
    assert "512 bytes, not 1024" in str(blob_problem(LAYER, 512))


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
