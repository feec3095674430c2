"""Prompts for an operator who decides whether an image is pushed. Created for an image that came with `push: ask`.

    {prefix}:prompt:<id>    Prompt
    {prefix}:prompts        ids by the time they were asked
    {prefix}:prompt-answer:<id>     PromptAnswer, the last one

There is one open prompt per reference; a newer image under the same reference replaces it. Pushing the image, for
whatever reason, answers it.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

import msgspec

from events.bus import IndexWrite, Outcome
from events.records import ANY, Key


class Prompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One open question. `correlation_id` ties the answer to the event that asked; `host` has the image."""

    id: str
    reference: str
    image_id: str
    asked_at: datetime
    size_bytes: int = 0
    origin: str = ""
    correlation_id: str = ""
    host: str | None = None


Verdict = Literal["push", "skip"]


class PromptAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a prompt: who decided what about which content. `push_id` is the record of the push or skip."""

    id: str
    reference: str
    image_id: str
    answer: Verdict
    at: datetime
    push_id: str
    actor: str = ""


def prompt_id(reference: str) -> str:
    """The id of the prompt of a normalised reference: safe in a key and a URL."""
    return hashlib.sha256(reference.encode()).hexdigest()[:32]


def prompt_key(prefix: str, id_: str) -> Key[Prompt]:
    """The key of a prompt's record."""
    return Key(f"{prefix}:prompt:{id_}", Prompt)


def answer_key(prefix: str, id_: str) -> Key[PromptAnswer]:
    """The key of the last answer to a prompt."""
    return Key(f"{prefix}:prompt-answer:{id_}", PromptAnswer)


def prompt_index(prefix: str) -> str:
    """The key of the index of open prompts."""
    return f"{prefix}:prompts"


def asked(prefix: str, prompt: Prompt) -> Outcome:
    """The write that stores the prompt."""
    return Outcome(
        records=(prompt_key(prefix, prompt.id).write(prompt, expected=ANY),),
        index=(IndexWrite(prompt_index(prefix), prompt.id, prompt.asked_at.timestamp()),),
    )


def answered(prefix: str, reference: str) -> Outcome:
    """The write that removes the prompt, if there is one."""
    id_ = prompt_id(reference)
    return Outcome(
        records=(prompt_key(prefix, id_).delete(expected=ANY),), index=(IndexWrite(prompt_index(prefix), id_, None),)
    )
