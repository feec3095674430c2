"""Push records and recorded transfers, over the bus in memory."""

from __future__ import annotations

import pytest

from events.envelope import Envelope
from events.messages import (
    Failure,
    ImagePushed,
    ImagePushFailed,
    Message,
    PushRequested,
    PushSkipped,
    TransferProgress,
)
from services.core.images.pushes import PushKeys, PushRecord
from services.core.images.transfers import Transfer, TransferKeys
from tests.simulation import eventually
from tests.unit.services.tracker.test_role import APP, ONE, STREAMS, TWO, pushed, tracked

pytestmark = pytest.mark.faked_time
KEYS, TRANSFERS = PushKeys("cyroid"), TransferKeys("cyroid")


def _said(message: Message, *, cause: str | None = None, actor: str = "eva") -> Envelope:
    return Envelope(message=message, source="api@t", subject=APP, causation_id=cause, actor=actor)


async def test_a_push_has_a_record_from_its_request_to_its_end() -> None:
    """Who asked and why, then the result; the end may be read before the request."""
    request = _said(PushRequested(reference=APP, image_id=ONE))
    async with tracked() as bus:
        for order in ("request first", "end first"):
            asked = _said(PushRequested(reference=APP, image_id=ONE)) if order == "end first" else request
            end = _said(pushed(), cause=asked.id, actor="")
            for envelope in (asked, end) if order == "request first" else (end, asked):
                await bus.publish(STREAMS.images, envelope)

            async def whole(push_id: str = asked.id) -> PushRecord | None:
                record = (await KEYS.record(push_id).load(bus)).value
                return record if record and record.result and record.actor == "eva" else None

            record = await eventually(whole, within_seconds=20)
            assert (record.state, record.why, record.image_id) == ("pushed", "manual", ONE)
            assert record.result is not None
            assert record.result.manifest_digest == TWO
        assert len(await bus.members(KEYS.all)) == 2


async def test_a_push_that_failed_or_was_skipped_says_so() -> None:
    """With the error, or with who decided."""
    failure = Failure(code="no_space", message="the disk is full")
    failed = _said(ImagePushFailed(reference=APP, error=failure), cause="cause-1")
    skipped = _said(PushSkipped(reference=APP, prompt_id="p1", image_id=ONE))
    async with tracked() as bus:
        await bus.publish(STREAMS.images, failed, skipped)

        async def both() -> list[PushRecord] | None:
            found = [(await KEYS.record(one).load(bus)).value for one in ("cause-1", skipped.id)]
            return [one for one in found if one] if all(found) else None

        first, second = await eventually(both, within_seconds=20)
        assert (first.state, first.error, first.why) == ("failed", failure, "auto")
        assert (second.state, second.actor) == ("skipped", "eva")


async def test_progress_is_kept_for_whoever_comes_later() -> None:
    """The last one of each transfer, with its rate; an automatic push has a record as soon as it moves."""
    progress = TransferProgress(
        transfer_id="push-built-1", reference=APP, kind="push", phase="sending", done_bytes=5, total_bytes=10
    )
    async with tracked() as bus:
        await bus.publish(STREAMS.progress, _said(progress))

        async def recorded() -> tuple[Transfer, PushRecord] | None:
            transfer = (await TRANSFERS.record("push-built-1").load(bus)).value
            push = (await KEYS.record("built-1").load(bus)).value
            return (transfer, push) if transfer and push else None

        transfer, push = await eventually(recorded, within_seconds=60)
        assert (transfer.done_bytes, transfer.total_bytes, push.state, push.why) == (5, 10, "pushing", "auto")
        assert await bus.members(TRANSFERS.open) == ["push-built-1"]
        done = TransferProgress(transfer_id="push-built-1", reference=APP, kind="push", phase="done")
        await bus.publish(STREAMS.progress, _said(done))

        async def over() -> bool:
            return not await bus.members(TRANSFERS.open)

        assert await eventually(over, within_seconds=60)


async def test_the_end_of_a_push_and_its_image_are_one_step() -> None:
    """Both records are there, whichever is looked at."""
    message = pushed()
    assert isinstance(message, ImagePushed)
    async with tracked() as bus:
        await bus.publish(STREAMS.images, _said(message, cause="cause-2"))
        await eventually(lambda: KEYS.record("cause-2").load(bus), within_seconds=20)

        async def there() -> bool:
            return (await KEYS.record("cause-2").load(bus)).value is not None

        assert await eventually(there, within_seconds=20)
        assert await bus.members("cyroid:index:image-changes") == [APP]
