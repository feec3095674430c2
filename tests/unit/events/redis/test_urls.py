"""What a URL of Redis says of servers, accounts and TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from events.bus import BusRefused
from events.redis.client import connect
from events.redis.urls import addresses, login_of, read_sentinel_url, unreadable_file


def test_servers_and_sentinels_have_accounts_of_their_own() -> None:
    """TLS is for both; a sentinel without a port has Sentinel's own."""
    read = read_sentinel_url(
        "rediss+sentinel://cyroid:p%2Fw@10.0.0.1:1,[fd00::2]:2,[fd00::3],four/images/3"
        "?sentinel_username=asker&sentinel_password=q%26&ssl_ca_certs=/ca.pem&ssl_check_hostname=no"
    )
    assert read.addresses == [("10.0.0.1", 1), ("fd00::2", 2), ("fd00::3", 26379), ("four", 26379)]
    assert (read.service, read.database) == ("images", 3)
    tls = {"ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}
    assert read.login == {"username": "cyroid", "password": "p/w"} | tls
    assert read.asking == {"username": "asker", "password": "q&"} | tls


def test_without_parameters_sentinels_are_asked_without_an_account() -> None:
    """As many set them up, in a network of their own."""
    read = read_sentinel_url("redis+sentinel://:p@h:1/images")
    assert (read.login, read.asking) == ({"username": "default", "password": "p"}, {})
    assert read_sentinel_url("redis+sentinel://h:1?sentinel_password=q").asking == {"username": None, "password": "q"}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis+sentinel://h:1/m/0?ssl_ca_certs=/ca.pem", "over TLS it is rediss.sentinel://"),
        ("redis+sentinel://h:1/m/0?sentinel_pasword=secret", "'sentinel_pasword' is no parameter"),
        ("redis+sentinel://h:1/m/0?sentinel_username=u", "no sentinel_password"),
        ("redis+sentinel://h:0/m/0", "no address of Redis"),
        ("redis+sentinel://h:1/m/zero", "no address of Redis"),
        ("redis+cluster://h:1?ssl_ca_certs=/ca.pem", "takes no parameters"),
        ("redis://h:1/0?ssl_ca_certs=/ca.pem", "over TLS it is rediss://"),
        ("redis://h:1/0?tiemout=3", "'tiemout' is no parameter"),
        ("rediss://h:1/0?ssl_cert_reqs=maybe", "Invalid SSL Certificate Requirements Flag: maybe"),
        ("rediss://h:1/0?ssl_ca_certs=/no/ca.pem", "ssl_ca_certs .* names /no/ca.pem: there is none"),
        ("rediss+sentinel://h:1/m/0?ssl_certfile=/no/own.pem", "ssl_certfile .* names /no/own.pem: there is none"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(url: str, told: str) -> None:
    """By the parameter's name, and never with the value of one that is not known."""
    with pytest.raises(BusRefused, match=told) as refused:
        connect(url, socket_timeout=1.0, name="test", prefix="{p}")
    assert "secret" not in str(refused.value)


def test_one_server_has_the_same_options() -> None:
    """Replicas are tried with what the master is reached with, over TLS as well."""
    assert login_of("rediss://u:p@h:1/0?ssl_ca_certs=/ca.pem&db=2") == {
        "username": "u",
        "password": "p",
        "ssl": True,
        "ssl_ca_certs": "/ca.pem",
    }
    assert login_of("redis://h:1/0") == {}


def test_a_file_that_may_be_read_is_no_problem(tmp_path: Path) -> None:
    """What is in it OpenSSL says."""
    (tmp_path / "ca.pem").touch()
    assert unreadable_file({"ssl": True, "ssl_ca_certs": str(tmp_path / "ca.pem")}) is None


@pytest.mark.parametrize("text", ["", "h:", ":1", "h:x", "h:65536", "h:1,", "[]:1", "h:\u0661"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """A host, and a port where there is one."""
    with pytest.raises(ValueError, match="no HOST:PORT"):
        addresses(text, 6379)
