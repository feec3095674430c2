"""Whether an engine reaches a registry through a proxy."""

import pytest

from services.core.ranges.proxies import proxy_note


@pytest.mark.parametrize(
    ("address", "no_proxy"),
    [
        ("registry:5000", "registry"),
        ("registry:5000", "other, registry:5000"),
        ("cyroid-registry.lan:5000", ".lan"),
        ("cyroid-registry.lan", "lan"),
        ("172.30.0.2:5000", "172.30.0.0/16"),
        ("registry:5000", "*"),
        ("127.0.0.1:5000", ""),
        ("[::1]:5000", ""),
        ("localhost:5000", ""),
    ],
)
def test_what_no_proxy_names_and_loopback_are_asked_directly(address: str, no_proxy: str) -> None:
    """As Go's clients do it."""
    assert proxy_note(address, "http://proxy:3128", no_proxy) is None


@pytest.mark.parametrize(("address", "no_proxy"), [("registry:5000", ""), ("172.30.0.2:5000", "10.0.0.0/8,lan")])
def test_a_registry_behind_a_proxy_is_named_with_the_remedy(address: str, no_proxy: str) -> None:
    """The proxy, the registry and the variable."""
    note = proxy_note(address, "http://proxy:3128", no_proxy)
    assert note is not None
    assert "http://proxy:3128" in note
    assert address in note
    assert "NO_PROXY" in note
    assert proxy_note(address, "", no_proxy) is None
