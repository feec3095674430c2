"""Loop devices of this kernel: what they show, and when they are free again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.machine.polling import poll
from services.adapters.loop_devices import backing_file, loop_device

pytestmark = pytest.mark.real
_HELD_BY_A_KILLED_PROCESS = """
import os, signal, sys
from pathlib import Path
from services.adapters.loop_devices import loop_device
with loop_device(Path(sys.argv[1])) as device:
    print(device, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_device_shows_a_file_read_only_until_it_is_let_go(tmp_path: Path) -> None:
    """Also to root; the name of the file is found through the device."""
    file = tmp_path / "a file"
    file.write_bytes(b"x" * 1024)
    with loop_device(file) as device:
        assert device.read_bytes() == file.read_bytes()
        assert backing_file(str(device)) == str(file)
        descriptor = os.open(device, os.O_RDWR)
        with pytest.raises(PermissionError):
            os.write(descriptor, bytes(512))
        os.close(descriptor)
    assert poll(lambda: not backing_file(str(device)), seconds=30)


def test_two_devices_are_two(tmp_path: Path) -> None:
    """The same file may have any number."""
    file = tmp_path / "file"
    file.write_bytes(bytes(512))
    with loop_device(file) as one, loop_device(file) as other:
        assert one != other


def test_a_file_whose_end_would_be_missing_gets_none(tmp_path: Path) -> None:
    """A device has whole sectors alone."""
    file = tmp_path / "file"
    file.write_bytes(bytes(1000))
    with pytest.raises(OSError, match="no whole number of sectors"), loop_device(file):
        pass


def test_the_device_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    """Nobody has to take anything back."""
    file = tmp_path / "file"
    file.write_bytes(bytes(512))
    command = [sys.executable, "-c", _HELD_BY_A_KILLED_PROCESS, str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert poll(lambda: not backing_file(ended.stdout.strip()), seconds=30)


def test_what_is_no_loop_device_has_no_file(tmp_path: Path) -> None:
    """Such as the source of any other mount."""
    assert [backing_file(name) for name in ("tmpfs", "/dev/sda", "/dev/loop-control", str(tmp_path))] == [""] * 4
