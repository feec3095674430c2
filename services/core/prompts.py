"""Questions for an operator: shall this image go into the registry? Asked where an image came with `push: ask`.

    {prefix}:prompt:<id>    Prompt
    {prefix}:prompts        ids by the time they were asked

There is one open prompt per reference; a newer image under the same reference replaces it. Pushing the image, for
whatever reason, answers it.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec

from events.bus import IndexWrite, Outcome, RecordWrite


class Prompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One open question. `correlation_id` ties the answer to the event that asked."""

    id: str
    reference: str
    image_id: str
    asked_at: datetime
    size_bytes: int = 0
    origin: str = ""
    correlation_id: str = ""


def prompt_id(reference: str) -> str:
    """The id of the prompt of a normalised reference: safe in a key and a URL."""
    return hashlib.sha256(reference.encode()).hexdigest()[:32]


def prompt_key(prefix: str, id_: str) -> str:
    return f"{prefix}:prompt:{id_}"


def prompt_index(prefix: str) -> str:
    return f"{prefix}:prompts"


def asked(prefix: str, prompt: Prompt) -> Outcome:
    """Store the question."""
    return Outcome(
        records=(RecordWrite(prompt_key(prefix, prompt.id), msgspec.json.encode(prompt)),),
        index=(IndexWrite(prompt_index(prefix), prompt.id, prompt.asked_at.timestamp()),),
    )


def answered(prefix: str, reference: str) -> Outcome:
    """Take the question away, if there is one."""
    id_ = prompt_id(reference)
    return Outcome(
        records=(RecordWrite(prompt_key(prefix, id_), None),), index=(IndexWrite(prompt_index(prefix), id_, None),)
    )
