"""Bridge guard: switches IPv6 off on the ranges' bridges, from a container on the host's network.

    python -m deploy.container.bridge_guard          for as long as it runs, also for bridges that come later
    python -m deploy.container.bridge_guard NAME…    once, for these as well: prints those that stay open

The kernel gives every bridge a link-local address, at which a range would reach what listens on the host. A bridge with
`disable_ipv6` has none, and the host drops whatever IPv6 comes in over it, for whatever address. The engine makes
bridges anew when the machine starts, and the switch is off on each; hence somebody who stays.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

#: What the name of each of our bridges begins with.
PREFIX = "cyr-"
#: The kernel shows each process that of its own network.
CONF = Path("/proc/sys/net/ipv6/conf")
#: Its age says that the guard is at work (docker-compose.yml).
LOOKED = Path("/tmp/looked")
#: The kernel tells of every change. It may drop what it has to say, so there is a look now and then anyway.
POLL_SECONDS = 10.0
#: A link came or changed; an IPv6 address did (rtnetlink(7), linux/rtnetlink.h).
LINK, ADDRESS = 0x1, 0x100


def told(left: Sequence[str]) -> str:
    """One line about bridges that are open. The rule in it drops packets before they are delivered or forwarded."""
    names = sorted({f"{PREFIX}+" if name.startswith(PREFIX) else name for name in left})
    rules = "; ".join(f"ip6tables -t raw -I PREROUTING -i {name} -j DROP" for name in names)
    return f"ranges can reach this host over IPv6 ({' '.join(left)}); close it: {rules}"


def shut(names: Sequence[str] = (), *, conf: Path = CONF) -> list[str]:
    """Switch IPv6 off on all bridges of ours and on `names`; those that stay open, sorted.

    A name that is not here at all counts as open: it is in a network that this process does not see.
    """
    if not conf.exists():  # the kernel has no IPv6
        return []
    ours = {path.name for path in conf.iterdir() if path.name.startswith(PREFIX)}
    left = {name for name in {*ours, *names} if not _shut(conf / name / "disable_ipv6")}
    return sorted(name for name in left if name in names or (conf / name).exists())


def _shut(switch: Path) -> bool:
    """Switch IPv6 off on one bridge; whether it is off, as read back."""
    try:
        if switch.read_text().strip() != "1":
            switch.write_text("1\n")
        return switch.read_text().strip() == "1"
    except OSError:
        return False


def watch() -> None:
    """Check whenever the kernel reports a link or an address. Never returns."""
    said: list[str] | None = None
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as news:
        news.bind((0, LINK | ADDRESS))
        news.settimeout(POLL_SECONDS)
        while True:
            found = shut()
            LOOKED.touch()
            if found != said:
                sys.stdout.write(f"{told(found) if found else 'no range can reach this host over IPv6'}\n")
                sys.stdout.flush()
                said = found
            _wait(news)


def _wait(news: socket.socket) -> None:
    try:
        news.recv(1 << 16)
    except TimeoutError:
        pass
    except OSError as problem:
        if problem.errno != errno.ENOBUFS:  # more was said than it keeps: something changed
            raise


def main(arguments: Sequence[str]) -> None:
    """The command line: watch for ever, or check the named bridges once."""
    if arguments:
        sys.stdout.write("".join(f"{name}\n" for name in shut(arguments)))
    else:
        watch()


if __name__ == "__main__":
    main(sys.argv[1:])
