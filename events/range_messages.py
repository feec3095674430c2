"""Bounds of a range's messages: number, length and size, checked where an entry of a range is decoded.

A range is hostile: everything in its messages is a claim that somebody stores, shows and sends on. A list or a number
over its bound refuses the entry; a text for people that is too long is cut, so that an honest agent with a wordy engine
is not refused. Other services' messages are not concerned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

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

#: An entry of a range has at most so many bytes; one that lists all images of its engine may have more.
ENTRY_BYTES = 64 * 1024
LIST_ENTRY_BYTES = 1024 * 1024
IMAGES = 5000
REFERENCES = 100
LAYERS = 256
#: Names, versions, ids of an engine; a digest has 71 characters.
NAME_CHARACTERS = 256
REFERENCE_CHARACTERS = 1024
CODE_CHARACTERS = 128
TEXT_CHARACTERS = 2000
#: Bytes and counts: what every reader of JSON takes for a whole number.
NUMBER = 2**53
SECONDS = 1e9


class OutOfBounds(ValueError):
    """What exceeds a bound in a message of a range."""


def size_limit(message: type[object]) -> int:
    """The most bytes of an entry of this type."""
    return LIST_ENTRY_BYTES if message in (AgentStarted, ImagesChanged) else ENTRY_BYTES


def bounded(message: Message) -> Message:
    """The message with its texts cut. Raises OutOfBounds for what cannot be cut."""
    match message:
        case AgentStarted():
            names = (message.engine_id, message.engine_version, message.platform)
            _short("engine_id, engine_version and platform", names)
            _images(message.images)
            _many("unreadable_layers", message.unreadable_layers, LAYERS)
        case ImagesChanged():
            _images(message.images)
            _many("unreadable_layers", message.unreadable_layers, LAYERS)
        case TarRequested():
            _many("diff_ids", message.diff_ids, LAYERS)
            _many("raw layers", message.raw, LAYERS)
            return replace(message, reason=_cut(message.reason))
        case ImageReady():
            _numbers(message.received_bytes, message.layers_reused, message.layers_total)
            _seconds(message.seconds)
        case ImageFailed():
            return replace(message, error=_cut(message.error))
        case TransferProgress():
            _short("transfer_id and range_id", (message.transfer_id, message.range_id or ""))
            _numbers(message.done_bytes, message.total_bytes, message.layers_done, message.layers_total)
            return replace(
                message, reference=message.reference[:REFERENCE_CHARACTERS], note=message.note[:TEXT_CHARACTERS]
            )
    return message


def _cut(failure: Failure) -> Failure:
    if len(failure.code) <= CODE_CHARACTERS and len(failure.message) <= TEXT_CHARACTERS:
        return failure
    return replace(failure, code=failure.code[:CODE_CHARACTERS], message=failure.message[:TEXT_CHARACTERS])


def _images(images: Sequence[PresentImage]) -> None:
    _many("images", images, IMAGES)
    for image in images:
        _many("references of an image", image.references, REFERENCES)
        _many("diff_ids of an image", image.diff_ids, LAYERS)
        _short("image_id, local_id and diff_ids", (image.image_id or "", image.local_id or "", *image.diff_ids))
        if any(len(reference) > REFERENCE_CHARACTERS for reference in image.references):
            raise OutOfBounds(f"a reference has more than {REFERENCE_CHARACTERS} characters")
        _numbers(image.size_bytes)


def _many(what: str, found: Sequence[object], limit: int) -> None:
    if len(found) > limit:
        raise OutOfBounds(f"{len(found)} {what}, at most {limit} are taken from a range")


def _short(what: str, texts: Iterable[str]) -> None:
    if any(len(text) > NAME_CHARACTERS for text in texts):
        raise OutOfBounds(f"{what} have at most {NAME_CHARACTERS} characters each")


def _numbers(*numbers: int) -> None:
    if any(number > NUMBER for number in numbers):
        raise OutOfBounds(f"bytes and counts are at most {NUMBER}")


def _seconds(seconds: float) -> None:
    if not math.isfinite(seconds) or not 0 <= seconds <= SECONDS:
        raise OutOfBounds("seconds are a number from 0 to a billion")
