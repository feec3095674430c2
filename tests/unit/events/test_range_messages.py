"""Bounds of what a range says, where an entry of a range is decoded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from events.codec import Undecodable, decode, encode
from events.envelope import Envelope
from events.messages import (
    AgentStarted,
    Failure,
    ImageFailed,
    ImageReady,
    ImagesChanged,
    Message,
    PresentImage,
    TarRequested,
    TransferProgress,
)
from events.streams import Streams

STREAMS = Streams("test")
OUTBOX, PROGRESS = STREAMS.outbox("r1"), STREAMS.range_progress("r1")
DIGEST = "sha256:" + "a" * 64


def fields(message: Message, **attributes: str) -> dict[bytes, bytes]:
    """What a range adds, whatever it weighs."""
    made = encode(Envelope(message=message, source="agent@r1", subject="r1"), limit_bytes=1 << 40)
    return made | {name.encode(): value.encode() for name, value in attributes.items()}


def started(**changes: object) -> AgentStarted:
    """An agent's announcement."""
    plain: dict[str, object] = {"engine_id": "e", "engine_version": "28", "store": "classic", "platform": "linux/amd64"}
    return AgentStarted(range_id="r1", **{**plain, **changes})  # type: ignore[arg-type]


def image(count: int = 1, references: int = 1, layers: int = 1, **changes: object) -> tuple[PresentImage, ...]:
    """Images of one kind."""
    plain: dict[str, object] = {
        "references": tuple(f"a:{number}" for number in range(references)),
        "diff_ids": (DIGEST,) * layers,
    }
    return (PresentImage(**{**plain, **changes}),) * count  # type: ignore[arg-type]


def too_much() -> Iterator[tuple[str, Message]]:
    """What is refused."""
    yield "name", started(engine_id="e" * 257)
    yield "version", started(engine_version="v" * 257)
    yield "platform", started(platform="p" * 257)
    yield "images", ImagesChanged(range_id="r1", images=image(5001, references=0, layers=0))
    yield "references", ImagesChanged(range_id="r1", images=image(references=101))
    yield "long reference", ImagesChanged(range_id="r1", images=(PresentImage(references=("x" * 1025,), diff_ids=()),))
    yield "layers", started(images=image(layers=257))
    yield "long layer", started(images=image(diff_ids=("x" * 257,)))
    yield "id", started(images=image(local_id="x" * 257))
    yield "size", started(images=image(size_bytes=2**53 + 1))
    yield "tar layers", TarRequested(transfer_id="t", reason=Failure(code="c", message="m"), diff_ids=(DIGEST,) * 257)
    yield "raw layers", TarRequested(transfer_id="t", reason=Failure(code="c", message="m"), raw=(DIGEST,) * 257)
    yield "bytes", ImageReady(transfer_id="t", image_id=DIGEST, how="pulled", received_bytes=10**30)
    yield "seconds", ImageReady(transfer_id="t", image_id=DIGEST, how="pulled", seconds=1e300)
    yield "negative seconds", ImageReady(transfer_id="t", image_id=DIGEST, how="pulled", seconds=-1.0)


@pytest.mark.parametrize(("what", "message"), list(too_much()), ids=[what for what, _ in too_much()])
def test_what_is_too_much_is_refused(what: str, message: Message) -> None:
    """From a range; from a service, whose stream is no range's, it is taken."""
    with pytest.raises(Undecodable) as refused:
        decode(fields(message), stream=OUTBOX)
    assert refused.value.code in ("out_of_bounds", "too_large"), what
    assert decode(fields(message)).message == message


def test_the_greatest_that_an_honest_range_says_is_taken() -> None:
    """Lists may be long, and a megabyte in all."""
    message = ImagesChanged(range_id="r1", images=image(5000, references=1, layers=0))
    assert decode(fields(message), stream=OUTBOX).message == message
    deep = started(images=image(10, references=100, layers=50))
    assert decode(fields(deep), stream=OUTBOX).message == deep


def test_a_text_for_people_is_cut() -> None:
    """An honest agent with a wordy engine is heard."""
    wordy = Failure(code="c" * 1000, message="m" * 30_000)
    failed = decode(fields(ImageFailed(transfer_id="t", error=wordy)), stream=OUTBOX).message
    assert isinstance(failed, ImageFailed)
    assert (len(failed.error.code), len(failed.error.message)) == (128, 2000)
    asked = decode(fields(TarRequested(transfer_id="t", reason=wordy)), stream=OUTBOX).message
    assert isinstance(asked, TarRequested)
    assert len(asked.reason.message) == 2000
    progress = TransferProgress(
        transfer_id="t", reference="r" * 30_000, kind="pull", phase="waiting", note="n" * 30_000
    )
    told = decode(fields(progress), stream=PROGRESS).message
    assert isinstance(told, TransferProgress)
    assert (len(told.reference), len(told.note)) == (1024, 2000)


@pytest.mark.parametrize("stream", [OUTBOX, PROGRESS])
def test_a_large_entry_is_refused_before_its_data_is_read(stream: str) -> None:
    """A failure or a note of 65 KiB and more."""
    text = "x" * 64 * 1024
    if stream == OUTBOX:
        message: Message = ImageFailed(transfer_id="t", error=Failure(code="c", message=text))
    else:
        message = TransferProgress(transfer_id="t", reference="r", kind="pull", phase="waiting", note=text)
    with pytest.raises(Undecodable) as refused:
        decode(fields(message) | {b"data": fields(message)[b"data"] + b"not JSON"}, stream=stream)
    assert refused.value.code == "too_large"


@pytest.mark.parametrize("name", ["id", "source", "type", "time", "correlationid", "causationid", "traceparent"])
def test_every_attribute_is_short(name: str) -> None:
    """It becomes part of keys and log lines; a subject may be a reference."""
    with pytest.raises(Undecodable) as refused:
        decode(fields(started(), **{name: "x" * 900_000}))
    assert refused.value.code == "bad_field"
    with pytest.raises(Undecodable, match="subject must have 0 to 4096 bytes"):
        decode(fields(started(), subject="x" * 5000))
