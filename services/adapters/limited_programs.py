"""Programs on content that is not trusted: within limits of time, memory and output, and killed with whoever waits."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from services.adapters.index_limits import LimitReached

_ROOT = str(Path(__file__).parents[2])


def program(module: str) -> list[str]:
    """The command line of a module's `main`, out of the tree that this process runs, whatever else is installed."""
    begin = f"import sys; sys.path.insert(0, {_ROOT!r}); from {module} import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-I", "-c", begin]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one program: seconds by the clock and of processor time, memory, and what it may write to a file."""

    seconds: float
    memory_bytes: int
    output_bytes: int

    def command(self, nice: int = 0) -> list[str]:
        """What stands before the program's own command line (prlimit of util-linux)."""
        priority = ["nice", f"-n{nice}"] if nice else []
        limits = [f"--as={self.memory_bytes}", f"--cpu={int(self.seconds)}", f"--fsize={self.output_bytes}"]
        return [*priority, "prlimit", *limits, "--core=0", "--nofile=64", "--nproc=64", "--"]

    def check(self, status: int) -> None:
        """Raises LimitReached; a program that reaches one has no time to say it."""
        if status == -signal.SIGXFSZ:
            raise LimitReached(f"its output would be larger than {self.output_bytes} bytes")
        if status == -signal.SIGXCPU:
            raise LimitReached(f"it takes more than {self.seconds:.0f} s of processor time")


async def run(
    command: Sequence[str],
    *,
    seconds: float,
    stdin: IO[bytes] | int | None = None,
    stdout: IO[bytes] | int | None = None,
    keep: Sequence[int] = (),
) -> tuple[int, str]:
    """Exit status and output of a program. It is killed when its time is over or the caller leaves.

    Raises LimitReached, OSError.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
        stdout=asyncio.subprocess.PIPE if stdout is None else stdout,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=tuple(keep),
        env={"PATH": os.environ.get("PATH", "/usr/bin"), "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(seconds):
            out, errors = await process.communicate()
    except TimeoutError as late:
        raise LimitReached(f"it did not end within {seconds:.0f} s") from late
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return process.returncode or 0, (out or b"").decode(errors="replace") + errors.decode(errors="replace")
