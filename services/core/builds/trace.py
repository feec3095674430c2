"""BuildKit's progress messages (`moby.buildkit.v1.StatusResponse`) as lines of a build log.

    #5 [2/4] RUN make
    #5 0.31 compiling                      what the step wrote, with seconds since it began
    #5 DONE 1.2s                           or CACHED, CANCELED, ERROR: <why>

A message repeats what was told before with more fields set; each thing becomes a line once. The form is that of
`docker buildx build --progress=plain` (buildkit, api/services/control/control.proto).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from services.core.builds import protobuf

#: A step that writes without line ends is cut into lines of this length.
_LINE_LIMIT = 16 * 1024


@dataclass(slots=True)
class _Step:
    """What is known of a vertex; times are in seconds."""

    name: str = ""
    number: int = 0
    ended: bool = False
    started: float | None = None
    rest: bytes = b""
    done: set[str] = field(default_factory=set)


class BuildTrace:
    """`lines` of each message in turn; `rest` is what the steps wrote without an end of line."""

    def __init__(self) -> None:
        self._steps: dict[str, _Step] = {}
        self._announced_steps = 0

    def lines(self, content: bytes) -> list[str]:
        """The lines that one message adds. Raises ValueError for what is no such message."""
        found: list[str] = []
        parts = [(number, value) for number, value in protobuf.fields(content) if isinstance(value, bytes)]
        vertexes = [value for number, value in parts if number == 1]
        for value in vertexes:
            self._begin(value)
        for number, value in parts:
            if number == 2:
                found += self._status(value)
            elif number == 3:
                found += self._log(value)
            elif number == 4:
                found += self._warning(value)
        for value in vertexes:
            found += self._vertex(value)
        return found

    def rest(self) -> list[str]:
        """Unfinished lines of steps that never ended."""
        return [line for step in self._steps.values() for line in self._flush(step)]

    def _step(self, digest: str) -> _Step:
        return self._steps.setdefault(digest, _Step())

    def _begin(self, content: bytes) -> None:
        """Note a vertex's name and start before what it wrote is told."""
        read = dict(protobuf.fields(content))
        step = self._step(protobuf.text(read.get(1, b"")))
        step.name = protobuf.text(read.get(3, b"")) or step.name
        if (started := read.get(5)) is not None:
            step.started = _seconds(started)

    def _vertex(self, content: bytes) -> Iterator[str]:
        read = dict(protobuf.fields(content))
        step = self._step(protobuf.text(read.get(1, b"")))
        cached, error, completed = bool(read.get(4)), protobuf.text(read.get(7, b"")), read.get(6)
        if step.ended or (read.get(5) is None and not cached and not error):
            return
        yield from self._announced(step)
        if cached:
            step.ended = True
            yield f"#{step.number} CACHED"
        elif completed is not None or error:
            step.ended = True
            yield from self._flush(step)
            yield f"#{step.number} {_end(error, step.started, completed)}"

    def _announced(self, step: _Step) -> Iterator[str]:
        if not step.number:
            self._announced_steps += 1
            step.number = self._announced_steps
            yield f"#{step.number} {step.name}"

    def _status(self, content: bytes) -> Iterator[str]:
        """Parts of a step, such as layers that are extracted: a line when each is complete."""
        read = dict(protobuf.fields(content))
        step = self._step(protobuf.text(read.get(2, b"")))
        what = protobuf.text(read.get(1, b""))
        if read.get(8) is None or what in step.done:
            return
        step.done.add(what)
        yield from self._announced(step)
        yield f"#{step.number} {what} done"

    def _log(self, content: bytes) -> Iterator[str]:
        read = dict(protobuf.fields(content))
        step = self._step(protobuf.text(read.get(1, b"")))
        written = read.get(4, b"")
        at = read.get(2)
        since = 0.0 if at is None or step.started is None else max(_seconds(at) - step.started, 0.0)
        yield from self._announced(step)
        *whole, step.rest = (step.rest + (written if isinstance(written, bytes) else b"")).split(b"\n")
        while len(step.rest) > _LINE_LIMIT:
            whole.append(step.rest[:_LINE_LIMIT])
            step.rest = step.rest[_LINE_LIMIT:]
        for line in whole:
            if shown := line.decode(errors="replace").rstrip("\r"):
                yield f"#{step.number} {since:.2f} {shown}"

    def _warning(self, content: bytes) -> Iterator[str]:
        read = dict(protobuf.fields(content))
        step = self._step(protobuf.text(read.get(1, b"")))
        yield from self._announced(step)
        yield f"#{step.number} WARN: {protobuf.text(read.get(3, b''))}"

    def _flush(self, step: _Step) -> Iterator[str]:
        line, step.rest = step.rest.decode(errors="replace").strip(), b""
        if line:
            yield f"#{step.number} {line}"


def _end(error: str, started: float | None, completed: int | bytes | None) -> str:
    if error.endswith("context canceled"):
        return "CANCELED"
    if error:
        return f"ERROR: {error}"
    took = 0.0 if started is None or completed is None else max(_seconds(completed) - started, 0.0)
    return f"DONE {took:.1f}s"


def _seconds(value: int | bytes) -> float:
    """A `google.protobuf.Timestamp`."""
    read = dict(protobuf.fields(value)) if isinstance(value, bytes) else {}
    whole, nanos = read.get(1, 0), read.get(2, 0)
    return (whole if isinstance(whole, int) else 0) + (nanos if isinstance(nanos, int) else 0) / 1e9
