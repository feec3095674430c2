"""Progress bars of transfers, read from the bus: a bar for each on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from deploy.demo.show import Show, short
from deploy.lab.logbook import LogBook, Mark
from deploy.lab.system import System
from deploy.machine.commands import MachineError
from events.messages import TransferProgress
from services.cli.output import size

LINE_SECONDS = 10.0
POLL_SECONDS = 0.1
ENDS = ("done", "failed")
"""The last phase of a transfer. After `failed` it may come another way, or by another try."""


@contextmanager
def transfers(show: Show, system: System) -> Iterator[None]:
    """Show every transfer that moves while inside."""
    over = threading.Event()
    with system.logbook() as book:
        streams = book.streams
        mark = book.mark(streams.progress, *(streams.range_progress(range_id) for range_id in system.ranges))
        watching = threading.Thread(target=_watch, args=(show, book, mark, over), name="bars", daemon=True)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join(5)


def _watch(show: Show, book: LogBook, mark: Mark, over: threading.Event) -> None:
    notes = _Notes(show)
    try:
        if show.live:
            with _Bars(show) as bars:
                _follow(book, mark, over, notes, bars.update)
        else:
            _follow(book, mark, over, notes, _Lines(show).update)
    except MachineError:
        return  # Redis is going away, and what there is to see with it


def _follow(
    book: LogBook, mark: Mark, over: threading.Event, notes: _Notes, update: Callable[[TransferProgress], None]
) -> None:
    last = False
    done: set[str] = set()  # the tracker's copy of what a range said before comes later than the range's own word
    while not last:
        last = over.wait(POLL_SECONDS)
        for envelope in book.follow(mark):
            step = envelope.message
            if not isinstance(step, TransferProgress) or step.transfer_id in done or notes.take(step):
                continue
            update(step)
            if step.phase == "done":
                done.add(step.transfer_id)


def _name(step: TransferProgress) -> str:
    where = {"push": "registry", "export": "spool"}.get(step.kind, step.range_id or "range")
    return f"{short(step.reference)} → {where}"


class _Notes:
    """Remarks of services, for instance why an image takes another path."""

    def __init__(self, show: Show) -> None:
        self._show = show

    def take(self, step: TransferProgress) -> bool:
        """Print a remark; whether it was one, and no transfer's progress."""
        if step.note:
            self._show.say(f"[yellow]{step.range_id}:[/] {escape(step.note)}")
        return not step.reference


class _Bars:
    def __init__(self, show: Show) -> None:
        self._progress = Progress(
            TextColumn("  {task.fields[name]:<36}"),
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]:>20}"),
            console=show.console,
        )
        self._known: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, step: TransferProgress) -> None:
        if step.transfer_id not in self._known:
            self._known[step.transfer_id] = self._progress.add_task("", name=_name(step), total=None, amount="")
        known = step.total_bytes > 0
        self._progress.update(
            self._known[step.transfer_id],
            description=f"[red]{step.phase}[/]" if step.phase == "failed" else step.phase,
            # Without a total the bar runs to and fro, which one that ended must not.
            completed=step.done_bytes if known else int(step.phase == "done"),
            total=step.total_bytes if known else 1 if step.phase in ENDS else None,
            amount=f"{size(step.done_bytes)} of {size(step.total_bytes)}" if known else "",
        )


class _Lines:
    def __init__(self, show: Show) -> None:
        self._show = show
        self._last: dict[str, float] = {}

    def update(self, step: TransferProgress) -> None:
        now = time.monotonic()
        if now - self._last.setdefault(step.transfer_id, now) >= LINE_SECONDS or step.phase == "failed":
            self._last[step.transfer_id] = now
            amount = f" {size(step.done_bytes)} of {size(step.total_bytes)}" if step.total_bytes else ""
            self._show.say(f"{_name(step)}: {step.phase}{amount}")
