"""Programs of the machine: finding them, and running them to their end."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class MachineError(Exception):
    """A program, package or server of this machine does not work: what, why, and the end of its log."""


def need(command: str, package: str) -> str:
    """Path of a program, or a MachineError that says which Debian package has it."""
    found = shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise MachineError(f"{command} is not installed: run `make setup` or `apt-get install {package}`")
    return found


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    seconds: float = 300,
) -> str:
    """Run to its end; its output. Raises MachineError with what it said."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, input=stdin or "", capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise MachineError(f"`{' '.join(command)}` did not end within {seconds:.0f} s") from late
    if done.returncode:
        raise MachineError(f"`{' '.join(command)}` failed:\n{(done.stderr or done.stdout)[-2000:]}")
    return done.stdout
