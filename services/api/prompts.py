"""`/api/v1/prompts/{prompt_id}/answer`: an operator decides whether an image is pushed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from events.messages import Digest
from services.api.route import Call, NoQuery, Reply, Route
from services.commands.prompts import answer_prompt
from services.core.images.prompts import PromptAnswer
from services.errors import NotFound, PromptAnswered
from services.queries.read_model.rows import PushRow


class AnswerBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The decision; with `image_id` only if the prompt still asks about that content."""

    answer: Annotated[Literal["push", "skip"], Meta(description="push or skip")]
    image_id: Digest | None = None


async def _answer(call: Call[NoQuery, AnswerBody]) -> Reply[PromptAnswer]:
    context = call.context
    try:
        given = await answer_prompt(
            call.path["prompt_id"],
            call.body.answer,
            bus=context.bus,
            streams=context.streams,
            source=context.source,
            actor=call.actor,
            image_id=call.body.image_id,
        )
    except NotFound:
        push = context.reads.mirror.pushes.latest_of_prompt(call.path["prompt_id"])
        if push is None:
            raise
        raise PromptAnswered(_pushed_meanwhile(push)) from None
    context.reads.mirror.wake()
    return Reply(given, location=f"/api/v1/pushes/{given.push_id}")


def _pushed_meanwhile(push: PushRow) -> str:
    """Why nothing is asked any more: a push that was no answer, by a rule or for a deployment."""
    why = {"auto": "by a rule", "on_demand": "for a deployment"}.get(push.why, f"by {push.actor or 'somebody'}")
    return f"{push.reference} was pushed {why}, asked for at {push.asked_at:%Y-%m-%d %H:%M:%S} UTC"


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="POST",
        path="/api/v1/prompts/{prompt_id}/answer",
        summary="answer a prompt once for all: `answer` is push or skip; may have `image_id`",
        handler=_answer,
        access="operator",
        query=NoQuery,
        body=AnswerBody,
        answer=PromptAnswer,
        errors=("not_found", "prompt_answered"),
    ),
)
