"""Chunks from blocking readers: a thread reads ahead while the event loop sends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from services.ports import Chunks

_AHEAD = 2


class _Reader:
    """One thread that runs an iterator, at most `_AHEAD` chunks before its consumer."""

    def __init__(self, iterate: Callable[[], Iterator[bytes]]) -> None:
        self._iterate = iterate
        self._loop = asyncio.get_running_loop()
        self._slots = threading.Semaphore(_AHEAD)
        self._queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self._stopped = threading.Event()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, name="chunks", daemon=True)

    def __aiter__(self) -> _Reader:
        return self

    async def __anext__(self) -> bytes:
        item = await self._queue.get()
        self._slots.release()
        if isinstance(item, bytes):
            return item
        self._queue.put_nowait(item)  # the end stays the end for whoever asks again
        if item is None:
            raise StopAsyncIteration
        raise item

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Waits for the thread, which ends after the read it is in."""
        self._stopped.set()
        self._slots.release()
        await asyncio.shield(self._ended)
        self._thread.join()

    def _work(self) -> None:
        last: BaseException | None = None
        try:
            for chunk in self._iterate():
                self._slots.acquire()
                if self._stopped.is_set():
                    break
                self._loop.call_soon_threadsafe(self._queue.put_nowait, chunk)
        except BaseException as problem:  # noqa: BLE001 - carried over to the consumer, whatever it is
            last = problem
        finally:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, last)
            self._loop.call_soon_threadsafe(self._ended.set_result, None)


@asynccontextmanager
async def from_thread(iterate: Callable[[], Iterator[bytes]]) -> AsyncIterator[Chunks]:
    """Run a blocking generator in a thread of its own; leaving stops it and waits until its files are closed."""
    reader = _Reader(iterate)
    reader.start()
    try:
        yield reader
    finally:
        await reader.stop()
