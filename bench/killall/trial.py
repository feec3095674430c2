"""One trial: a deployment of a new image to every range, one kill in its middle, and the result."""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.killall.clients import Posts
from bench.killall.schedule import BEFORE_ACCEPTANCE, BY_REGISTRY, BY_TAR, Kill
from bench.killall.supervisor import DRIVEN, Supervisor
from deploy.lab import EngineServer, Valve
from deploy.lab.logbook import LogBook, Mark
from deploy.machine.commands import MachineError
from events.envelope import Envelope
from events.messages import (
    DeploymentCancelled,
    DeploymentEnded,
    DeploymentFailed,
    DeploymentRequested,
    DeploymentSucceeded,
    ImagePushed,
    ImageReady,
    LoadOffered,
    PullRequested,
    TarRequested,
    TransferProgress,
)

END_SECONDS = 90.0
"""A deployment that has not ended so long after the kill is stuck."""
LATE_SECONDS = 90.0
"""One that has not ended after so much more is lost."""
MOMENT_SECONDS = 45.0


@dataclass(slots=True, kw_only=True)
class Result:
    """What one kill led to. `hit` is the moment it really hit, None when the deployment had ended before."""

    kill: Kill
    hit: str | None = None
    seconds: float = 0.0
    hows: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    def line(self) -> str:
        troubles = [*self.lost, *self.stuck, *self.wrong, *self.failed, *self.leftovers]
        where = f"{self.hit or 'missed'}{' (tar)' if self.kill.by_tar else ''}"
        about = f"{self.kill.victim:<16} {where:<20} {self.seconds:6.1f} s  {' '.join(self.hows):<16}"
        return " ".join([about, *troubles])


class Register:
    """Every outcome ever said, by deployment: none may get a second one."""

    def __init__(self, book: LogBook) -> None:
        self.ends: dict[str, list[Envelope]] = {}
        self._book = book
        self._mark: Mark = {book.streams.deployments: "0-0"}

    def read(self) -> None:
        """Take in what was said since; nothing while Redis is unavailable."""
        with contextlib.suppress(MachineError):
            for envelope in self._book.follow(self._mark):
                if isinstance(envelope.message, DeploymentSucceeded | DeploymentFailed | DeploymentCancelled):
                    self.ends.setdefault(envelope.message.deployment_id, []).append(envelope)

    def has_all(self, deployments: dict[str, str]) -> bool:
        self.read()
        return all(one in self.ends for one in deployments)

    def end(self, deployment_id: str) -> DeploymentEnded | None:
        found: Any = self.ends.get(deployment_id)
        return found[0].message if found else None


class Trial:
    """`run` does all of it, once."""

    def __init__(
        self, supervisor: Supervisor, book: LogBook, register: Register, kill: Kill, source: random.Random
    ) -> None:
        self._supervisor = supervisor
        self._book = book
        self._register = register
        self._kill = kill
        self._random = source
        self._moments = BY_TAR if kill.by_tar else BY_REGISTRY
        supervisor.aim = DRIVEN if kill.victim == "agent-pool" else "range-1"
        streams, range_id = book.streams, supervisor.range.name
        self._watched = (
            streams.images,
            streams.deployments,
            streams.inbox(range_id),
            streams.outbox(range_id),
            streams.range_progress(range_id),
        )
        self._mark: Mark = {}
        self._said: set[str] = set()
        self._unfinished_before: set[str] = set()

    def run(self) -> Result:
        supervisor, result = self._supervisor, Result(kill=self._kill)
        image = supervisor.build()
        wanted = (
            supervisor.host.docker("image", "inspect", "--format", "{{.Id}}", image).strip(),
            supervisor.host.layers(image),
        )
        supervisor.settle()
        self._mark = self._book.mark(*self._watched)
        self._unfinished_before = supervisor.unfinished()
        if self._kill.by_tar:
            supervisor.rest("registry")
        self._hold()
        deployments = supervisor.wanted()
        posts = Posts(supervisor.valves.told.address, deployments, image)
        if self._kill.moment in BEFORE_ACCEPTANCE:
            posts.begin()
        else:
            supervisor.request(deployments, image)
        killed_at = self._strike(deployments, result)
        if self._kill.moment in BEFORE_ACCEPTANCE:
            self._ask_again(posts, result)
        supervisor.valves.open()
        self._await_end(deployments, result)
        result.seconds = round(time.monotonic() - killed_at, 1)
        supervisor.resting.clear()
        supervisor.settle()
        self._judge(deployments, image, wanted, result)
        return result

    def _ask_again(self, posts: Posts, result: Result) -> None:
        """The clients' answers are lost with the api; once it is back they repeat themselves.

        Nothing arrives before that (see `_hold`): a repetition of what has ended is told the outcome again.
        """
        supervisor = self._supervisor
        for valve in (supervisor.valves.told, supervisor.valves.heard):
            valve.cut()
            valve.open()
        result.hit = self._kill.moment if posts.lost() else None
        supervisor.settle()
        posts.repeat(supervisor.wait)

    def _count(self, deployment_id: str, range_id: str, to: Result) -> None:
        """A deployment that was asked for twice begins once."""
        first, inbox = f"{deployment_id}.0.1", {self._book.streams.inbox(range_id): "0-0"}
        begun = self._book.find(PullRequested, inbox, lambda message: message.transfer_id == first)
        if len(begun) != 1:
            to.wrong.append(f"{range_id} was told {len(begun)} times to begin {deployment_id}")

    # ---- the kill ----

    def _hold(self) -> None:
        """Make the transfer stand still in its middle, where the kill is to hit just there."""
        held: dict[str, Valve] = {
            "pushing": self._supervisor.valves.push,
            "pulling": self._supervisor.valves.pull,
            "loading": self._supervisor.valves.tar,
        }
        if self._kill.moment in BEFORE_ACCEPTANCE:
            valves = self._supervisor.valves
            for valve in (valves.pull, valves.tar, valves.heard if self._kill.moment == "posting" else valves.told):
                valve.shut_after(0)
        if self._kill.moment in held:
            share = self._random.uniform(0.2, 0.6)
            held[self._kill.moment].shut_after(int(self._supervisor.layer_bytes * share))

    def _strike(self, deployments: dict[str, str], result: Result) -> float:
        supervisor, moment = self._supervisor, self._kill.moment
        first = next(iter(deployments))
        self._supervisor.wait(lambda: self._is_at(moment) or first in self._seen().ends, MOMENT_SECONDS)
        if moment in ("requested", "pushed", "pull asked", "tar asked", "load offered"):
            time.sleep(self._random.uniform(0, 0.06))
        hit = self._hit()
        killed, killed_at = datetime.now(UTC), time.monotonic()
        supervisor.kill(self._kill.victim)
        supervisor.victims["deployer"].resume()
        self._supervisor.wait(lambda: supervisor.victims["redis"].running, 10)
        self._register.read()
        ended = self._register.ends.get(first)
        result.hit = hit if ended is None or ended[0].time > killed else None
        return killed_at

    def _seen(self) -> Register:
        self._register.read()
        return self._register

    def _is_at(self, moment: str) -> bool:
        """Whether the deployment has come to `moment`, as far as it can be seen."""
        supervisor = self._supervisor
        if moment in ("pulled", "loaded"):
            # The outcome follows the answer within milliseconds: the deployer is held before it can read that.
            if "unpacking" not in self._said and self._unpacks():
                self._said.add("unpacking")
                supervisor.victims["deployer"].pause()
            return self._heard(moment)
        states = {
            "requested": lambda: True,
            "posting": lambda: supervisor.valves.heard.held > 0,
            "pushing": lambda: supervisor.valves.push.is_shut,
            "pulling": lambda: supervisor.valves.pull.is_shut,
            "loading": lambda: supervisor.valves.tar.is_shut,
            "extracting": self._unpacks,
            "unpacking": self._unpacks,
        }
        return states[moment]() if moment in states else self._heard(moment)

    def _unpacks(self) -> bool:
        """Whether the range's engine is in the middle of a layer of this deployment."""
        return bool(self._supervisor.unfinished() - self._unfinished_before)

    def _hit(self) -> str:
        """The furthest moment that can be seen now."""
        return next(one for one in reversed(self._moments) if self._heard(one) or self._is_at(one))

    def _heard(self, moment: str) -> bool:
        """Whether the streams tell of `moment`."""
        with contextlib.suppress(MachineError):
            for envelope in self._book.follow(self._mark):
                told = _told(envelope, self._kill.by_tar)
                if told is not None:
                    self._said.add(told)
        return moment in self._said

    # ---- afterwards ----

    def _await_end(self, deployments: dict[str, str], result: Result) -> None:
        if self._supervisor.wait(lambda: self._register.has_all(deployments), END_SECONDS):
            return
        late = [f"{range_id} is stuck" for one, range_id in deployments.items() if one not in self._register.ends]
        self._supervisor.wait(lambda: self._register.has_all(deployments), LATE_SECONDS)
        result.lost = [f"{range_id} is lost" for one, range_id in deployments.items() if one not in self._register.ends]
        result.stuck = late[len(result.lost) :]

    def _judge(self, deployments: dict[str, str], image: str, wanted: tuple[str, tuple[str, ...]], to: Result) -> None:
        """Compare what each range's engine says with what the host's engine has; then tidy up, and see what stays."""
        self._supervisor.unwant()
        for deployment_id, range_id in deployments.items():
            engine = self._supervisor.system.ranges[range_id]
            if self._kill.moment in BEFORE_ACCEPTANCE:
                self._count(deployment_id, range_id, to)
            end = self._register.end(deployment_id)
            found = engine.docker("image", "ls", "--quiet", "--no-trunc", image).strip()
            right = bool(found) and (found, engine.layers(image)) == wanted
            if found and not right:
                to.wrong.append(f"{range_id} has {found} as {image}, not {wanted[0]}")
            if isinstance(end, DeploymentSucceeded):
                to.hows += [str(one.how) for one in end.images]
                if not found:
                    to.wrong.append(f"{range_id} was to have {image} and has not")
            elif isinstance(end, DeploymentFailed):
                reasons = [end.error, *(one.error for one in end.images)]
                to.failed.append(f"{range_id}: {'; '.join(one.message for one in reasons if one)}")
            if found:
                self._tidy(engine, image, to)
            to.leftovers += [f"{range_id} keeps {name}" for name in engine.names()]
        if self._supervisor.spools():
            to.leftovers.append(f"{self._supervisor.spools()} spools")
        self._tidy(self._supervisor.host, image, to)

    @staticmethod
    def _tidy(engine: EngineServer, image: str, to: Result) -> None:
        try:
            engine.docker("rmi", image)
        except MachineError as problem:
            to.leftovers.append(f"{engine.name} does not remove {image}: {problem}\n{engine.log_tail(40)}")


def _told(envelope: Envelope, by_tar: bool) -> str | None:
    """The moment that a message tells of."""
    message = envelope.message
    if isinstance(message, TransferProgress):
        if message.phase != "downloading":
            return None
        return "loading" if message.kind == "load" else "pulling"
    if isinstance(message, DeploymentRequested):
        return "posted"
    if isinstance(message, PullRequested):
        return "requested" if by_tar else "pull asked"
    told: dict[type, str] = {
        ImagePushed: "pushed",
        TarRequested: "tar asked",
        LoadOffered: "load offered",
        ImageReady: "loaded" if by_tar else "pulled",
    }
    return told.get(type(message))
