"""Threads of low priority: what a collection computes gives way to pulls and pushes on the same processors."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
#: Of Linux: a nice value belongs to one thread.
_NICE = 10


def _give_way() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="collector", initializer=_give_way)


async def in_background(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `asyncio.to_thread`, in a thread that runs when nobody else wants to."""
    return await asyncio.get_running_loop().run_in_executor(_threads, partial(function, *args, **kwargs))
