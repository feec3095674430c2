"""What `make up DEMO=1` shows at its end."""

from __future__ import annotations

import io
import tarfile

import pytest

from deploy.machine.commands import MachineError
from deploy.stack.show import DOCKERFILE, context, ways


def test_the_build_has_a_dockerfile_alone() -> None:
    """A whole tar, although it goes as text."""
    with tarfile.open(fileobj=io.BytesIO(context().encode())) as archive:
        assert archive.getnames() == ["Dockerfile"]
        member = archive.extractfile("Dockerfile")
        assert member is not None
        assert member.read().decode() == DOCKERFILE


def test_a_row_says_how_each_image_got_there() -> None:
    """Fields that were left out are nothing sent, nothing reused."""
    image = {"reference": "docker.io/training/hello:1.0", "how": "present", "seconds": 0.1}
    (way,) = ways("range-1", {"type": "deployment.succeeded.v1", "images": [image]}, 9.0)
    assert (way.where, way.path, way.sent_bytes, way.seconds) == ("range-1", "present", 0, 0.1)


def test_a_deployment_that_failed_is_said() -> None:
    """With what was said of it."""
    with pytest.raises(MachineError, match="no agent"):
        ways("range-1", {"type": "deployment.failed.v1", "error": "no agent"}, 1.0)
