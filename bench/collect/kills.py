"""Processes of a storm that are killed at a random moment, or kill themselves, and are started again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence


async def killed_at_random(
    command: Sequence[str], dice: random.Random, between: tuple[float, float] | None
) -> AsyncIterator[None]:
    """Run a command again and again; one item for each end.

    between   it is killed after so many seconds; None: never
    """
    while True:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if between is None else dice.uniform(*between)):
                    await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        yield
