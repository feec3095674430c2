"""Proxy settings of an engine that its pulls from a registry would go through, and what to do about it.

An engine with HTTP_PROXY sends its pulls there too, except for what NO_PROXY names and for loopback addresses (Go's
`httpproxy`). A proxy outside does not know a registry of ours, so pulls fail and images come as archives instead.
"""

from __future__ import annotations

import ipaddress


def proxy_note(address: str, proxy: str, no_proxy: str) -> str | None:
    """What is wrong, and what to do, where an engine with these settings uses `proxy` for the registry at `address`."""
    host, _, port = address.rpartition(":") if address.rpartition(":")[2].isdigit() else (address, "", "")
    host = host.strip("[]").lower()
    if not proxy or host == "localhost" or _is_loopback(host):
        return None
    if any(_matches(part.strip().lower(), host, port) for part in no_proxy.split(",") if part.strip()):
        return None
    return f"this engine goes through the proxy {proxy} to the registry {address}: add {host} to the engine's NO_PROXY"


def _matches(pattern: str, host: str, port: str) -> bool:
    if pattern in {"*", host, f"{host}:{port}"}:
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return host.endswith("." + pattern.lstrip("*").lstrip("."))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
