"""A short selection of the sweep; `python -m bench simulate --sweep 1` hits every step."""

from __future__ import annotations

from bench.simulation.fault_proxies import Kind
from bench.simulation.sweep import SWEPT, Sweep, lines, run_with, steps


def test_no_single_fault_spoils_the_story() -> None:
    """One fault alone, at a step of each process: every deployment ends once and right."""
    calls = steps()
    chosen = [_one(turn, {process: calls[process]}) for turn, process in enumerate(calls)]
    assert {kind for _process, _place, _call, kind in chosen} == set(SWEPT)
    for process, place, call, kind in chosen:
        one = run_with({(process, place): kind}, name=f"{process}, {call}, {kind}")
        assert one.problems == []
        assert one.faults.kinds[kind] == 1


def test_every_role_makes_calls_in_the_story() -> None:
    """The story has work for each of them: a layer, an archive, a pull, a mounted layer, a load, a record."""
    calls = {call for made in steps().values() for call in made}
    assert {"registry.put_blob piece", "layers.layer piece", "engine.pull piece", "engine.load piece"} <= calls
    assert {"mounts.show", "mounts.engine_is", "placer.accept", "placer.place", "placer.settle"} <= calls
    assert {"bus.finish", "bus.acquire", "registry.put_manifest", "engine.untag", "bus.load_many"} <= calls


def test_a_sweep_counts_what_it_injected() -> None:
    """One fault for each round that it tells."""
    sweep = Sweep()
    rounds = list(sweep.run(every=1500))
    assert len(rounds) == sweep.rounds == sweep.places.total()
    assert sweep.problems == []


def _one(turn: int, calls: dict[str, list[str]]) -> tuple[str, int, str, Kind]:
    """Early or late in a process, each process with another kind of fault."""
    kind = SWEPT[turn % len(SWEPT)]
    alike = [line for line in lines(calls) if line[3] == kind]
    return alike[len(alike) * (turn % 2) // 2]
