"""Answers to prompts: an operator decides whether an image is pushed, once for everybody who was asked."""

from __future__ import annotations

from datetime import UTC, datetime

from events.bus import BusClient, IndexWrite, Outcome, Post, RecordConflict
from events.envelope import Envelope, new_id
from events.messages import PushRequested, PushSkipped
from events.records import ANY, load_both
from events.streams import Streams
from services.core.images.prompts import Prompt, PromptAnswer, Verdict, answer_key, prompt_index, prompt_key
from services.errors import NotFound, PromptAnswered

#: An answer is known for so long after the question.
KEPT_SECONDS = 30 * 86400.0


async def answer_prompt(
    prompt_id: str,
    verdict: Verdict,
    *,
    bus: BusClient,
    streams: Streams,
    source: str,
    actor: str = "",
    image_id: str | None = None,
    event_id: str | None = None,
) -> PromptAnswer:
    """Answer a prompt, in one step with the command that follows from it.

    Of two answers one wins; the other raises PromptAnswered, which says whose it was. With `image_id` only if the
    prompt still asks about that content: a newer image of the name asks again. `event_id`: that of the command's event.
    Raises NotFound.
    """
    prefix = streams.prefix
    question, answer = prompt_key(prefix, prompt_id), answer_key(prefix, prompt_id)
    while True:
        stored, earlier = await load_both(bus, question, answer)
        prompt = stored.value
        if prompt is None:
            if earlier.value is not None:
                raise PromptAnswered(explain(earlier.value))
            raise NotFound(f"no prompt {prompt_id} is open: its image was pushed, or nobody asked")
        if image_id is not None and image_id != prompt.image_id:
            raise PromptAnswered(f"{prompt.reference} has newer content, which the question is about now: look again")
        envelope = _command(prompt, verdict, source=source, actor=actor, event_id=event_id)
        given = PromptAnswer(
            id=prompt_id,
            reference=prompt.reference,
            image_id=prompt.image_id,
            answer=verdict,
            actor=actor,
            at=datetime.now(UTC),
            push_id=envelope.id,
        )
        records = (
            question.delete(expected=stored),
            answer.write(given, expected=ANY, expires_seconds=KEPT_SECONDS),
        )
        index = (IndexWrite(prompt_index(prefix), prompt_id, None),)
        try:
            await bus.commit(Outcome(posts=(Post(streams.images, envelope),), records=records, index=index))
        except RecordConflict:
            continue  # somebody answered in this very moment, or a newer image asks
        return given


def _command(prompt: Prompt, verdict: Verdict, *, source: str, actor: str, event_id: str | None) -> Envelope:
    message: PushRequested | PushSkipped
    if verdict == "push":
        message = PushRequested(reference=prompt.reference, image_id=prompt.image_id, why="prompt", host=prompt.host)
    else:
        message = PushSkipped(reference=prompt.reference, prompt_id=prompt.id, image_id=prompt.image_id)
    return Envelope(
        message=message,
        source=source,
        subject=prompt.reference,
        id=event_id or new_id(),
        correlation_id=prompt.correlation_id,
        actor=actor,
    )


def explain(answer: PromptAnswer) -> str:
    """Who answered, how, and when."""
    who = answer.actor or "somebody"
    done = "had it pushed" if answer.answer == "push" else "skipped it"
    return f"{who} {done} at {answer.at:%Y-%m-%d %H:%M:%S} UTC: {answer.reference}"
