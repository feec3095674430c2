"""Thousands of deployments in faked time, with faults at every step: does each end once, and right?

`python -m bench simulate --json [--faults 20000] [--seed N]`

Each round is an installation of its own in memory (three ranges, two deployers) with a seed of its own; a round that
goes wrong is repeated with `--seed N --faults 1`. Faults are those of `bench.chaos`. When they end, everything must
come to rest within an hour of the installation's own time.

    lost    deployments that nobody knows, or whose end was never told
    wrong   ready without the right content; ended in two ways; something pushed twice; a name, a slot, a place in a
            queue left behind; content that a recreated range did not get back; more at work at any moment than there
            are slots, on the host or in a range
    stuck   deployments still open after that hour
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import structlog

from bench.chaos import Chaos
from bench.faked_loop import FakedLoop
from bench.world import World, eventually
from events.messages import (
    DeploymentCancelRequested,
    DeploymentRequested,
)
from events.task_group import TaskGroup
from services.core.admission import Ticket
from services.core.deployment import Deployment, Policy

SHARED = b"base" * 200
IMAGES = 4
DEPLOYMENTS = 12
#: Reasons that no fault of these accounts for: the host has every image all the time.
IMPOSSIBLE = frozenset({"image_not_found", "platform_mismatch", "wrong_content", "unexpected"})


_WATCH_SECONDS = 0.25


class Round:
    """One installation's story. `problems` are words for people, each counted as lost, wrong or stuck."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chaos = Chaos(seed)
        self.count: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.problems: list[str] = []
        self._wanted: dict[str, str] = {}

    def _bad(self, kind: str, what: str) -> None:
        self.count[kind] += 1
        self.problems.append(f"seed {self.seed}: {kind}: {what}")

    async def run(self) -> None:
        """From the first request to rest, then look."""
        dice = self.chaos.random
        policy = Policy(
            pulls_per_host=dice.choice((1, 2, 8)), pulls_per_range=3, agent_grace_seconds=120.0, silence_seconds=30.0
        )
        async with World(ranges=3, replicas=2, policy=policy, door=self.chaos.door) as world:
            for number in range(IMAGES):
                reference = f"docker.io/library/image-{number}:1"
                made = world.host.add_image(reference, [SHARED, b"layer %d" % number])
                self._wanted[reference] = made.image_id or ""
            async with TaskGroup() as tasks:
                watching = tasks.create_task(self._watch_slots(world))
                async with TaskGroup() as story:
                    story.create_task(self.chaos.run(world, dice.uniform(20.0, 60.0)))
                    asked = await self._ask(world)
                await self._rest(world)
                watching.cancel()
            await self._look(world, asked)

    async def _watch_slots(self, world: World) -> None:
        """For ever: who is at work, against how many may be. A deployment's index entries move with its record."""
        policy = world.policy
        while True:
            active = [Ticket.parse(text) for text in await world.bus.members(world.keys.active)]
            if len(active) > policy.pulls_per_host:
                self._bad("wrong", f"{len(active)} at work on {policy.pulls_per_host} slots: {active}")
            for range_id, held in Counter(ticket.range_id for ticket in active).items():
                if held > policy.pulls_per_range:
                    self._bad("wrong", f"{held} at work in {range_id}, at most {policy.pulls_per_range} may be")
            await asyncio.sleep(_WATCH_SECONDS)

    async def _ask(self, world: World) -> list[str]:
        dice, asked = self.chaos.random, list[str]()
        for number in range(DEPLOYMENTS):
            await asyncio.sleep(dice.uniform(0.0, 4.0))
            images = tuple(dice.sample(sorted(self._wanted), dice.randint(1, IMAGES)))
            deployment_id = f"d{number}"
            request = DeploymentRequested(
                deployment_id=deployment_id, range_id=dice.choice(list(world.engines)), images=images
            )
            await world.say(world.streams.deployments, request)
            asked.append(deployment_id)
            if dice.random() < 0.1:
                await asyncio.sleep(dice.uniform(0.0, 3.0))
                cancel = DeploymentCancelRequested(deployment_id=deployment_id)
                await world.say(world.streams.deployments, cancel)
        return asked

    async def _rest(self, world: World) -> None:
        """Until nothing is open; recreated ranges have their restoring deployments by then as well."""

        async def quiet() -> bool:
            for pause in (150.0, 0.0):  # a restoring deployment that failed is made again, after a pause
                if await world.bus.members(world.keys.open) or await world.bus.members(world.keys.queue):
                    return False
                await asyncio.sleep(pause)
            return True

        try:
            await eventually(quiet, within_seconds=3600.0, every_seconds=2.0)
        except TimeoutError:
            for deployment_id in await world.bus.members(world.keys.open):
                self._bad("stuck", f"{deployment_id}: {await world.deployment(deployment_id)}")

    async def _look(self, world: World, asked: list[str]) -> None:
        for deployment_id in asked:
            found = await world.deployment(deployment_id)
            if found is None:
                self._bad("lost", f"nobody knows {deployment_id}")
            elif not found.open:
                await self._look_at(world, found)
        everything = [await world.deployment(one) for one in await world.bus.members(world.keys.all)]
        await self._look_at_ranges(world, [one for one in everything if one is not None])
        for digest, times in Counter(one[:2] for one in world.registry.uploaded).items():
            if times > 1:
                self._bad("wrong", f"{digest} was pushed {times} times")
        for key in (world.keys.queue, world.keys.active, *map(world.keys.push, self._wanted)):
            if left := await world.bus.members(key):
                self._bad("wrong", f"left in {key}: {left}")

    async def _look_at(self, world: World, found: Deployment) -> None:
        ends = await world.ends(found.deployment_id)
        self.count[found.state] += 1
        if not ends:
            self._bad("lost", f"the end of {found.deployment_id} was never told")
        if len({type(one) for one in ends}) > 1:
            self._bad("wrong", f"{found.deployment_id} ended in {len(ends)} ways")
        for image in found.images:
            if image.error is not None:
                self.reasons[image.error.code] += 1
                if image.state == "failed" and image.error.code in IMPOSSIBLE:
                    self._bad("wrong", f"{found.deployment_id}: {image.error.message}")
            if image.state == "ready" and image.image_id != self._wanted[image.reference]:
                self._bad("wrong", f"{found.deployment_id}: {image.reference} is {image.image_id}")

    async def _look_at_ranges(self, world: World, everything: list[Deployment]) -> None:
        """What was ready is there, under its name and no other, also after the range was recreated."""
        for range_id, engine in world.engines.items():
            for image in await engine.images():
                if image.repo_digests:
                    self._bad("wrong", f"{range_id} kept the names {image.repo_digests}")
            for deployment in everything:
                if deployment.range_id != range_id or deployment.state != "succeeded":
                    continue
                for image_state in deployment.images:
                    there = await engine.inspect(image_state.reference)
                    if there is None or there.image_id != image_state.image_id:
                        what = (
                            f"{deployment.deployment_id} succeeded, {range_id} has {image_state.reference} as {there}"
                        )
                        self._bad("wrong", what)


def simulate(seed: int) -> Round:
    """One round, in a loop whose time is faked."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    one = Round(seed)
    random.seed(seed)
    loop = FakedLoop()
    try:
        loop.run_until_complete(one.run())
    finally:
        loop.close()
        structlog.configure(**before)
    return one


def main(argv: Sequence[str]) -> dict[str, Any]:
    """One object: deployments, faults by kind, lost, wrong, stuck, and how deployments ended."""
    parser = argparse.ArgumentParser(prog="bench simulate", description=__doc__)
    parser.add_argument("--faults", type=int, default=20_000, help="go on until so many were injected")
    parser.add_argument("--seed", type=int, default=1, help="the first round's seed")
    chosen = parser.parse_args(argv)
    total, faults, reasons, rounds = Counter[str](), Counter[str](), Counter[str](), 0
    while faults.total() < chosen.faults:
        one = simulate(chosen.seed + rounds)
        rounds += 1
        total += one.count
        faults += one.chaos.count
        reasons += one.reasons
        for problem in one.problems:
            sys.stderr.write(problem + "\n")
        if rounds % 20 == 0:
            sys.stderr.write(f"{rounds} rounds, {faults.total()} faults, {dict(total)}\n")
    ends = {state: total[state] for state in ("succeeded", "failed", "cancelled")}
    bad = {kind: total[kind] for kind in ("lost", "wrong", "stuck")}
    return {
        "deployments": rounds * DEPLOYMENTS,
        "faults": faults.total(),
        **bad,
        "ended": ends,
        "failures_by_reason": dict(sorted(reasons.items())),
        "rounds": rounds,
        "by_kind": dict(sorted(faults.items())),
        "ok": not any(bad.values()),
    }
