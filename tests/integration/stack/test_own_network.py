"""A network of one's own: it is there, and nothing of it is left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from deploy.machine.commands import run
from deploy.stack.own_network import OwnNetwork, outward


def state() -> tuple[str, str, str]:
    """Namespaces, links and firewall rules of the machine that bear our mark."""
    name = f"t{os.getpid() % 10**7}"
    kept = []
    for command in (["ip", "netns", "list"], ["ip", "-br", "link"], ["iptables-save"]):
        lines = run(["env", f"PATH={os.environ['PATH']}:/usr/sbin:/sbin", *command]).splitlines()
        kept.append("\n".join(line for line in lines if name in line))
    return kept[0], kept[1], kept[2]


def test_it_has_a_way_out_and_leaves_nothing() -> None:
    """Inside there is one interface beside loopback and a default route; afterwards no trace on the machine."""
    with OwnNetwork(f"t{os.getpid() % 10**7}") as network:
        routes = run(network.inside(["ip", "route"]))
        assert routes.startswith("default via ")
        assert all(state())
    assert state() == ("", "", "")


def test_what_comes_from_inside_is_passed_on() -> None:
    """Also on a machine where no engine ever switched forwarding on: on its own interface and on the way out."""
    name = f"t{os.getpid() % 10**7}"
    with OwnNetwork(name):
        ways_out = outward(run(["ip", "-4", "route", "show", "default"]))
        for interface in (f"{name}-out", *ways_out):
            assert Path("/proc/sys/net/ipv4/conf", interface, "forwarding").read_text() == "1\n"


def test_the_ways_out_are_the_default_routes() -> None:
    """Each interface once; a route that names none is left out."""
    routes = [
        "default via 192.0.2.1 dev eth0",
        "default via 192.0.2.1 dev eth0 metric 9",
        "default dev wg0",
        "blackhole",
    ]
    assert outward("\n".join(routes)) == ["eth0", "wg0"]


def test_one_that_was_killed_is_cleared_by_the_next() -> None:
    """The same name again: what an earlier one left does not stand in the way, and is gone at the end."""
    name = f"t{os.getpid() % 10**7}"
    left = OwnNetwork(name)
    left.__enter__()
    with OwnNetwork(name) as network:
        done = subprocess.run(network.inside(["ip", "-br", "link"]), capture_output=True, text=True, check=True)
        assert f"{name}-in" in done.stdout
    assert state() == ("", "", "")
