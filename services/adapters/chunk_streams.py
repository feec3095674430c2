"""Chunks from blocking readers: a thread reads ahead while the event loop sends, or hands each chunk on by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from services.ports import Chunks

_AHEAD = 2
_STOP_SECONDS = 30.0


class _Reader:
    """One thread that runs an iterator, at most `_AHEAD` chunks before its consumer (`services.ports.ThreadChunks`).

    It starts when the first chunk is asked for.
    """

    def __init__(self, iterate: Callable[[], Iterator[bytes]]) -> None:
        self._iterate = iterate
        self._loop = asyncio.get_running_loop()
        self._slots = threading.Semaphore(_AHEAD)
        self._queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self._stopped = threading.Event()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, name="chunks", daemon=True)
        self._step: Callable[[bytes], None] | None = None

    def __aiter__(self) -> _Reader:
        return self

    async def __anext__(self) -> bytes:
        self._start()
        item = await self._queue.get()
        self._slots.release()
        if isinstance(item, bytes):
            return item
        self._queue.put_nowait(item)  # the end stays the end for whoever asks again
        if item is None:
            raise StopAsyncIteration
        raise item

    async def each(self, step: Callable[[bytes], None]) -> None:
        if self._thread.ident is not None:
            raise RuntimeError("chunks were asked for one by one before")
        self._step = step
        async for _ in self:  # nothing but the end comes this way
            pass

    def _start(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    async def stop(self) -> None:
        """Waits for the thread, which ends after the read or step it is in; one that does not return is left behind."""
        self._stopped.set()
        if self._thread.ident is None:
            return
        self._slots.release()
        ended, _ = await asyncio.wait({self._ended}, timeout=_STOP_SECONDS)
        if ended:
            self._thread.join()

    def _work(self) -> None:
        last: BaseException | None = None
        try:
            for chunk in self._iterate():
                if self._step is None:
                    self._slots.acquire()
                if self._stopped.is_set():
                    break
                if self._step is not None:
                    self._step(chunk)
                    continue
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
    try:
        yield reader
    finally:
        await reader.stop()
