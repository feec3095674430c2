"""The shared folder of mounted layers, as the mount tables of engines show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.machine.commands import MachineError
from deploy.stack.mounted_layers import is_shared, mountinfo, mounts_below, range_options

LAYERS = Path("/data/my stack/layers")
ROOT = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw"
SHARED_ROOT = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"
SLAVE = "30 22 254:0 /data /data rw master:3 - ext4 /dev/vda rw"
OWN = r"31 30 254:0 /data/l /data/my\040stack/layers rw shared:9 master:3 - ext4 /dev/vda rw"
LAYER = r"32 31 0:50 / /data/my\040stack/layers/layers/ab rw shared:11 - erofs /layers/index/ab.erofs ro"


def test_a_folder_is_shared_as_the_deepest_mount_above_it_is() -> None:
    """Private or only a slave means that what the layer-mounter mounts does not come out of its container."""
    assert not is_shared(ROOT, LAYERS)
    assert is_shared(SHARED_ROOT, LAYERS)
    assert not is_shared(f"{SHARED_ROOT}\n{SLAVE}", LAYERS)
    assert is_shared(f"{SHARED_ROOT}\n{SLAVE}\n{OWN}", LAYERS)


def test_mounts_below_the_folder_are_found_with_their_blanks() -> None:
    """The folder itself too, in the order in which they were made; nothing beside it."""
    table = "\n".join([ROOT, SLAVE, OWN, LAYER])
    assert mounts_below(table, LAYERS) == [LAYERS, LAYERS / "layers/ab"]
    assert mounts_below(table, Path("/data/my")) == []


def test_a_process_that_is_gone_is_one_clear_error() -> None:
    """The engine may have stopped meanwhile."""
    with pytest.raises(MachineError, match="mounts cannot be read"):
        mountinfo(2**22 + 1)


def test_a_range_sees_its_own_part_alone() -> None:
    """Bound with `rslave`: what the host mounts later appears, what the range mounts stays its own."""
    options = range_options(Path("/data"), "r1")
    assert "type=bind,source=/data/layers/ranges/r1,target=/run/cyroid-layers,bind-propagation=rslave" in options
    assert "CYROID_SHOWN_LAYERS=/run/cyroid-layers" in options
