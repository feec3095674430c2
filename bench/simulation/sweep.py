"""Sweep: one fault at every call of every process, one after the other.

A short workload (an image with mounted layers, one by tar because the registry is down, one pulled in a range that the
agent pool drives, a cancel, a retry) is run once without a fault, to learn which calls are made. Then it is run again
for each call and each kind of fault, with that fault alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bench.simulation.fault_injection import Script
from bench.simulation.fault_proxies import Kind
from bench.simulation.run import SimulationRun
from bench.simulation.workload import Ask, NemesisEvent, Workload

#: A call that is late without losing its lease changes nothing but the moment.
SWEPT: tuple[Kind, ...] = ("killed before", "killed after", "lost call", "lost reply", "very late")
#: Looking whether there is something to do: of so many such calls one is hit, they are all alike.
POLLS = frozenset({"bus.take", "bus.wait", "bus.recover", "bus.discover", "bus.members"})
POLLS_ALIKE = 10
WORKLOAD = Workload(
    asks=(
        Ask(at=0.1, range_id="r0", images=(0, 1)),
        Ask(at=1.0, range_id="p0", images=(0,), retry_after=9.0),
        Ask(at=4.0, range_id="r1", images=(1, 2)),
        Ask(at=4.5, range_id="r0", images=(3,), cancel_after=0.3),
    ),
    nemesis_faults=(NemesisEvent(at=3.0, kind="registry down", range_id="", value=0.2),),
    mounting=True,
)
_QUIET_SECONDS = 12.0


def run_with(faults: Mapping[tuple[str, int], Kind], *, name: str = "sweep") -> SimulationRun:
    """Run the workload with these faults in it."""
    return SimulationRun(WORKLOAD, Script(faults), name=name, quiet_seconds=_QUIET_SECONDS).run()


def steps() -> dict[str, list[str]]:
    """By process, the calls that it makes in the workload without a fault."""
    quiet = run_with({})
    if quiet.problems:
        raise AssertionError(f"the workload goes wrong without a fault: {quiet.problems}")
    assert isinstance(quiet.faults, Script)
    return quiet.faults.calls


def lines(calls: Mapping[str, Sequence[str]], *, every: int = 1) -> Iterator[tuple[str, int, str, Kind]]:
    """Process, number and name of a call, and the fault that hits it; one of `every` so many, spread evenly."""
    number = 0
    for process, made in calls.items():
        for place, call in enumerate(made):
            if call in POLLS and place % POLLS_ALIKE:
                continue
            for kind in SWEPT:
                if number % every == 0:
                    yield process, place, call, kind
                number += 1


class Sweep:
    """Runs the workload with each fault. `places` counts (process, call); `problems` are words for people."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.places: Counter[tuple[str, str]] = Counter()
        self.problems: list[str] = []
        self.rounds = 0

    def run(self, *, every: int = 1) -> Iterator[int]:
        """Run all of them, or one of `every`. Yields how many rounds were run, after each."""
        for process, place, call, kind in lines(steps(), every=every):
            one = run_with({(process, place): kind}, name=f"{process}, call {place} ({call}), {kind}")
            self.rounds += 1
            self.count += one.count
            self.kinds += one.faults.kinds
            self.places += one.faults.places
            self.problems += one.problems
            yield self.rounds
