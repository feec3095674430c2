"""BuildKit's progress as lines."""

from services.core.builds.protobuf import message
from services.core.builds.trace import BuildTrace


def at(seconds: float) -> bytes:
    """A timestamp."""
    return message((1, int(seconds)), (2, round(seconds % 1 * 1e9)))


def vertex(
    digest: str,
    name: str,
    *,
    started: float | None = None,
    completed: float | None = None,
    cached: bool = False,
    error: str = "",
) -> bytes:
    """A status message with one vertex."""
    read: list[tuple[int, int | bytes]] = [(1, digest.encode()), (3, name.encode())]
    if cached:
        read.append((4, 1))
    if started is not None:
        read.append((5, at(started)))
    if completed is not None:
        read.append((6, at(completed)))
    if error:
        read.append((7, error.encode()))
    return message((1, message(*read)))


def written(digest: str, content: bytes, seconds: float = 100.0) -> bytes:
    """A status message with output of a step."""
    return message((3, message((1, digest.encode()), (2, at(seconds)), (3, 1), (4, content))))


def test_a_step_is_told_when_it_begins_and_when_it_ends() -> None:
    """Once each, however often the engine repeats it; numbers follow the order of beginning."""
    trace = BuildTrace()
    assert trace.lines(vertex("b", "second")) == []
    assert trace.lines(vertex("a", "first", started=100)) == ["#1 first"]
    assert trace.lines(vertex("a", "first", started=100)) == []
    assert trace.lines(vertex("b", "second", started=101)) == ["#2 second"]
    assert trace.lines(vertex("a", "first", started=100, completed=101.25)) == ["#1 DONE 1.2s"]
    assert trace.lines(vertex("a", "first", started=100, completed=101.25)) == []


def test_cached_failed_and_cancelled_steps_say_so() -> None:
    """Each with the word of `docker buildx`."""
    trace = BuildTrace()
    assert trace.lines(vertex("a", "one", cached=True, started=1, completed=1)) == ["#1 one", "#1 CACHED"]
    assert trace.lines(vertex("b", "two", started=1, completed=2, error="exit code: 3")) == [
        "#2 two",
        "#2 ERROR: exit code: 3",
    ]
    stopped = vertex("c", "three", started=1, completed=2, error="process: context canceled")
    assert trace.lines(stopped) == ["#3 three", "#3 CANCELED"]


def test_output_comes_as_whole_lines_with_its_time() -> None:
    """Pieces are joined; what has no end of line comes with the step's end."""
    trace = BuildTrace()
    trace.lines(vertex("a", "one", started=100))
    assert trace.lines(written("a", b"hel", 100.5)) == []
    assert trace.lines(written("a", b"lo\r\n\nwor", 101)) == ["#1 1.00 hello"]
    assert trace.lines(vertex("a", "one", started=100, completed=102)) == ["#1 wor", "#1 DONE 2.0s"]


def test_a_line_without_an_end_is_cut() -> None:
    """Memory stays bounded whatever a step writes."""
    trace = BuildTrace()
    trace.lines(vertex("a", "one", started=100))
    lines = trace.lines(written("a", b"x" * 100_000, 100))
    assert len(lines) == 6
    assert trace.rest() == ["#1 " + "x" * (100_000 - 6 * 16 * 1024)]


def test_parts_of_a_step_are_told_when_complete() -> None:
    """Such as layers that are extracted; progress within them is not."""
    trace = BuildTrace()
    trace.lines(vertex("a", "FROM base", started=100))
    moving = message((2, message((1, b"extracting sha256:1"), (2, b"a"), (4, 5), (5, 10))))
    done = message((2, message((1, b"extracting sha256:1"), (2, b"a"), (4, 10), (5, 10), (8, at(101)))))
    assert trace.lines(moving) == []
    assert trace.lines(done) == ["#1 extracting sha256:1 done"]
    assert trace.lines(done) == []


def test_a_warning_is_a_line() -> None:
    """With its step."""
    trace = BuildTrace()
    trace.lines(vertex("a", "lint", started=100))
    assert trace.lines(message((4, message((1, b"a"), (3, b"JSONArgsRecommended"))))) == [
        "#1 WARN: JSONArgsRecommended"
    ]
