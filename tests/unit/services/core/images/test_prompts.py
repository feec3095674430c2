"""Prompts: one per reference, stored and taken away together with their place in the index."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from events.bus import Outcome
from events.memory.bus import MemoryBus
from services.core.images.prompts import Prompt, answered, asked, prompt_id, prompt_index, prompt_key

NAME = "docker.io/team/app:1"


async def test_a_prompt_is_listed_until_it_is_answered() -> None:
    """Record and index come and go together; asking again replaces."""
    bus = MemoryBus()
    prompt = Prompt(id=prompt_id(NAME), reference=NAME, image_id="sha256:1", asked_at=datetime(2026, 1, 2, tzinfo=UTC))
    await bus.commit(asked("t", prompt))
    await bus.commit(asked("t", msgspec.structs.replace(prompt, image_id="sha256:2")))
    assert await bus.members(prompt_index("t")) == [prompt.id]
    record = await bus.load(prompt_key("t", prompt.id).name)
    assert record is not None
    assert msgspec.json.decode(record.value, type=Prompt).image_id == "sha256:2"
    gone: Outcome = answered("t", NAME)
    await bus.commit(gone)
    assert await bus.members(prompt_index("t")) == []
    assert await bus.load(prompt_key("t", prompt.id).name) is None
