"""Network namespace with a way out, for an engine with bridges and firewall rules of its own.

    with OwnNetwork("name") as network:
        network.inside(["dockerd", …])      # the command line that runs inside

On the machine it makes one interface and three firewall rules, each marked with the namespace's name; leaving takes
them away again, and so does the next `OwnNetwork` of that name when this one was killed. Forwarding is switched on for
that interface and the ones that lead outside, and stays on there, as an engine of the machine's own leaves it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.machine.commands import MachineError, need, run

#: Two addresses for each namespace out of this, one outside and one inside.
POOL = ipaddress.IPv4Network("10.213.0.0/16")


class OwnNetwork:
    """`name` is at most 11 letters: interface names are short."""

    def __init__(self, name: str) -> None:
        if len(name) > 11:
            raise MachineError(f"{name} is too long for a network's name: 11 letters at most")
        self.name = name
        self._ip = need("ip", "iproute2")
        self._iptables = [need("iptables", "iptables"), "-w", "10"]
        place = int.from_bytes(name.encode().rjust(8, b"\0")[-8:], "big") % (POOL.num_addresses // 4)
        self._outside, self._inside = list(ipaddress.IPv4Network((int(POOL[place * 4]), 30)).hosts())

    def __enter__(self) -> Self:
        self.close()
        far = f"{self.name}-in"
        near = f"{self.name}-out"
        run([self._ip, "netns", "add", self.name])
        run([self._ip, "link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name])
        run([self._ip, "address", "add", f"{self._outside}/30", "dev", near])
        run([self._ip, "link", "set", near, "up"])
        for words in (
            ["link", "set", "lo", "up"],
            ["address", "add", f"{self._inside}/30", "dev", far],
            ["link", "set", far, "up"],
            ["route", "add", "default", "via", str(self._outside)],
        ):
            run(self.inside([self._ip, *words]))
        for rule in self._rules():
            run([*self._iptables, *rule[:2], "-I", *rule[2:]])
        for interface in (near, *outward(run([self._ip, "-4", "route", "show", "default"]))):
            _forward(interface)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def inside(self, command: Sequence[str]) -> list[str]:
        """`command`, run in this network. Not `ip netns exec`: that hides the control groups."""
        return [need("nsenter", "util-linux"), f"--net=/run/netns/{self.name}", "--", *command]

    def close(self) -> None:
        """Take away whatever there is of it."""
        for rule in self._rules():
            while self._there([*self._iptables, *rule[:2], "-C", *rule[2:]]):
                run([*self._iptables, *rule[:2], "-D", *rule[2:]])
        if self._there([self._ip, "link", "show", f"{self.name}-out"]):
            run([self._ip, "link", "delete", f"{self.name}-out"])
        if self.name in run([self._ip, "netns", "list"]).split():
            run([self._ip, "netns", "delete", self.name])

    def _rules(self) -> list[list[str]]:
        """Table, chain and the rest, to be put behind `-I`, `-C` or `-D`."""
        mark = ["-m", "comment", "--comment", f"cyroid stack {self.name}"]
        return [
            ["-t", "nat", "POSTROUTING", "-s", f"{self._inside}/32", *mark, "-j", "MASQUERADE"],
            ["-t", "filter", "FORWARD", "-i", f"{self.name}-out", *mark, "-j", "ACCEPT"],
            ["-t", "filter", "FORWARD", "-o", f"{self.name}-out", *mark, "-j", "ACCEPT"],
        ]

    def _there(self, command: Sequence[str]) -> bool:
        try:
            run(command)
        except MachineError:
            return False
        return True


def outward(routes: str) -> list[str]:
    """The interfaces that `ip route show default` names."""
    words = [line.split() for line in routes.splitlines()]
    return sorted({line[line.index("dev") + 1] for line in words if "dev" in line})


def _forward(interface: str) -> None:
    """What comes in there may go on elsewhere. A machine on which no engine ever ran forwards nothing."""
    switch = Path("/proc/sys/net/ipv4/conf", interface, "forwarding")
    if switch.read_text().strip() != "1":
        switch.write_text("1")
