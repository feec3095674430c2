"""Honest operator inside the API's container: one process for the whole run, so that no start of Python is timed.

A line of JSON in, a line out: `{"range_id": …, "images": […], "deployment_id": …, "seconds": …}` deploys and waits so
long for the end (0: does not wait); with `"show"` it says how a deployment is. Answers have `state` and `seconds`.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

from events.lease import Bus
from events.streams import Streams
from services.commands.requests import ask_deployer, deployment
from services.errors import CyroidError
from services.queries.deployments import one_deployment
from services.resources import open_resources
from services.runtime.environment import read_settings


async def state(bus: Bus, streams: Streams, deployment_id: str) -> str:
    try:
        return (await one_deployment(bus, streams, deployment_id)).state
    except CyroidError:
        return "unknown"


async def answer(bus: Bus, streams: Streams, asked: dict[str, Any]) -> dict[str, Any]:
    if "show" in asked:
        return {"state": await state(bus, streams, asked["show"]), "seconds": 0.0}
    message = deployment(asked["range_id"], asked["images"], deployment_id=asked.get("deployment_id"))
    begun = time.monotonic()
    await ask_deployer(message, bus=bus, streams=streams, source="bench@host")
    found = "unknown"
    while time.monotonic() - begun < asked["seconds"]:
        found = await state(bus, streams, message.deployment_id)
        if found in ("succeeded", "failed", "cancelled"):
            break
        await asyncio.sleep(0.02)
    return {"state": found, "seconds": time.monotonic() - begun, "deployment_id": message.deployment_id}


async def main() -> None:
    async with open_resources(read_settings(os.environ)) as resources:
        bus = await resources.bus()
        while line := await asyncio.to_thread(sys.stdin.readline):
            said = await answer(bus, resources.streams, json.loads(line))
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
