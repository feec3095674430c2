"""Allowed networks of ranges' engines: an engine's address must lie in one that the operator named."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks_of(text: str) -> list[Network]:
    """`172.30.1.0/24, 10.1.2.3` → networks. Raises ValueError for what is none."""
    return [ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()]


def engine_refusal(engine_url: str, networks: str) -> str | None:
    """Why `tcp://HOST:PORT` is not called, None if it may be; `networks` is a list with commas, empty for anywhere.

    A name is refused where networks are named: what it stands for is decided by somebody else, and may change.
    """
    allowed = networks_of(networks)
    if not allowed:
        return None
    try:
        host = urlsplit(engine_url).hostname or ""
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"engine_url {engine_url!r} names no address, and only addresses in {networks} are allowed"
    plain = getattr(address, "ipv4_mapped", None) or address
    if any(plain in network for network in allowed):
        return None
    return f"engine_url {engine_url!r} is not in {networks}, the networks where engines of ranges are"
