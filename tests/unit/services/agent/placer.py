"""A layer placer that notes what is asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field

from events.messages import Layer
from services.errors import LayersNotMounted


@dataclass
class Placer:
    """Notes what is asked of it; `problem` is raised by `place`, which takes `seconds`."""

    problem: LayersNotMounted | None = None
    seconds: float = 0.0
    asked: list[str] = field(default_factory=list)
    idle: dict[str, str] = field(default_factory=dict)
    broken: tuple[str, ...] = ()

    async def available(self) -> bool:
        return True

    async def accept(self, transfer_id: str, layers: Sequence[Layer]) -> None:
        self.asked.append(f"accept {transfer_id}")

    def using(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def place(self, transfer_id: str, layers: Sequence[Layer], source: str) -> None:
        self.asked.append(f"place {transfer_id}")
        await asyncio.sleep(self.seconds)
        if self.problem is not None:
            raise self.problem

    async def settle(self, transfer_id: str) -> None:
        self.asked.append(f"settle {transfer_id}")

    async def unused(self) -> dict[str, str]:
        return dict(self.idle)

    async def forget(self, grants: Mapping[str, str]) -> None:
        for name in grants:
            self.idle.pop(name)

    async def unreadable(self) -> tuple[str, ...]:
        if self.problem is not None:
            raise OSError("the store is gone")
        return self.broken
