"""Commands for operators: redrive and drop dead letters; and `doctor`, which asks every dependency."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from events.lease import Bus
from services.api.route import Call, DoctorFinding, NoBody, NoQuery, Reply, Route
from services.errors import NotConfirmed, Unavailable
from services.queries.dead_letter_pages import LetterFilter, count, letters, streams_of

#: So many letters at a time.
AT_ONCE = 1000
_DOCTOR_SECONDS = 60.0


class LettersBody(LetterFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which letters. Without `confirm`, their number, nothing is done but to count them."""

    confirm: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None


class LettersDone(msgspec.Struct, frozen=True, kw_only=True):
    """How many letters matched, and with how many it was done; the others were gone meanwhile, or come next time."""

    matching: int
    done: int


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of all checks. `well`: nothing is wrong."""

    well: bool
    items: list[DoctorFinding]


async def _redrive(call: Call[NoQuery, LettersBody]) -> Reply[LettersDone]:
    return await _each(call, lambda bus, on, letter: bus.redrive(on, letter))


async def _drop(call: Call[NoQuery, LettersBody]) -> Reply[LettersDone]:
    return await _each(call, lambda bus, on, letter: bus.drop(on, letter))


async def _each(
    call: Call[NoQuery, LettersBody], act: Callable[[Bus, str, str], Awaitable[bool]]
) -> Reply[LettersDone]:
    body, bus = call.body, call.context.bus
    names = streams_of(call.context.streams, call.context.reads.mirror.ranges.addressed)
    wanted = LetterFilter(letters=body.letters, on=body.on, group=body.group, reason=body.reason, type=body.type)
    matching = await count(bus, names, wanted)
    if body.confirm is None:
        return Reply(LettersDone(matching=matching, done=0))
    if body.confirm != matching:
        raise NotConfirmed(f"{matching} dead letters match, and {body.confirm} were confirmed")
    chosen = []
    async for letter in letters(bus, names, wanted):
        chosen.append((letter.on, letter.letter))
        if len(chosen) >= AT_ONCE:
            break
    done = [await act(bus, on, letter) for on, letter in chosen]
    return Reply(LettersDone(matching=matching, done=sum(done)))


async def _doctor(call: Call[NoQuery, NoBody]) -> Reply[DoctorReport]:
    try:
        async with asyncio.timeout(_DOCTOR_SECONDS):
            items = list(await call.context.doctor())
    except TimeoutError:
        raise Unavailable("the checks did not end in time") from None
    return Reply(DoctorReport(well=all(one.state != "wrong" for one in items), items=items))


def _letters(verb: str, summary: str, handler: Any, access: Any) -> Route[Any, Any, Any]:
    return Route(
        method="POST",
        path=f"/api/v1/dead-letters/{verb}",
        summary=summary,
        handler=handler,
        access=access,
        query=NoQuery,
        body=LettersBody,
        answer=LettersDone,
        errors=("not_confirmed",),
        body_limit_bytes=128 * 1024,
    )


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    _letters("redrive", "publish dead letters again: `letters` or a filter, and `confirm`", _redrive, "operator"),
    _letters("drop", "delete dead letters: `letters` or a filter, and `confirm`", _drop, "admin"),
    Route(
        method="GET",
        path="/api/v1/doctor",
        summary="check all dependencies now: one finding each, and what to do about it",
        handler=_doctor,
        query=NoQuery,
        body=NoBody,
        answer=DoctorReport,
        errors=("unavailable",),
    ),
)
