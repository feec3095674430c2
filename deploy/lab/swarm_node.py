"""A node of a Docker Swarm: an engine in a network namespace of its own, which ends with it.

A Swarm makes bridges, overlays and firewall rules; so none of them is on the machine.
"""

from __future__ import annotations

from deploy.lab.engine_server import EngineServer
from deploy.lab.laboratory import Lab
from deploy.machine.commands import need


class SwarmNode(EngineServer):
    """The machine's own engine, to be the one node of a Swarm. It reaches nothing outside."""

    def command(self) -> list[str]:
        inside = [need("unshare", "util-linux"), "--net", "--", "/bin/sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        return [*inside, *super().command()]

    def make_swarm(self) -> str:
        """Begin a Swarm; the id of this node."""
        self.docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377")
        return self.docker("info", "--format", "{{.Swarm.NodeID}}").strip()


def swarm_node(lab: Lab, name: str) -> SwarmNode:
    """Start a node in `lab`."""
    node = SwarmNode(name, lab.place(name), lab.mark, bridge=True, containerd_store=False, options=())
    lab.start(node)
    return node
