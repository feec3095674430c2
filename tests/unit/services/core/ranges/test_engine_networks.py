"""Where engines of ranges may be."""

import pytest

from services.core.ranges.engine_networks import engine_refusal

NETWORKS = "172.30.1.0/24, fd00::/64"


@pytest.mark.parametrize("url", ["tcp://172.30.1.6:2375", "tcp://[fd00::6]:2375/", "tcp://[::ffff:172.30.1.6]:2375"])
def test_an_address_in_a_named_network_is_allowed(url: str) -> None:
    """However it is written."""
    assert engine_refusal(url, NETWORKS) is None


@pytest.mark.parametrize(
    "url",
    [
        "tcp://172.30.0.24:9099",
        "tcp://127.0.0.1:2375",
        "tcp://range-7:2375",
        "tcp://2887647494:2375",
        "tcp://[fd01::6]:1",
    ],
)
def test_any_other_is_refused_with_the_networks(url: str) -> None:
    """Names as well: what they stand for is decided elsewhere."""
    assert NETWORKS in str(engine_refusal(url, NETWORKS))


def test_what_is_no_network_is_an_error() -> None:
    """The process says so before it starts (`services.serving`)."""
    with pytest.raises(ValueError, match="999"):
        engine_refusal("tcp://172.30.1.6:2375", "999.1.1.1/24")


def test_without_networks_everything_is_allowed() -> None:
    """As it was before there was the setting."""
    assert engine_refusal("tcp://range-7:2375", "") is None
