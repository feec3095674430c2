"""The project as a whole."""

from pathlib import Path

import events
import services


def test_the_events_package_is_ours() -> None:
    """The name `Events` exists on PyPI; what is imported here is this project's."""
    assert events.PROJECT == "cyroid-images"
    assert Path(events.__file__).parent.parent == Path(services.__file__).parent.parent
