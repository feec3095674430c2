"""Where a registry is, and who we are to it."""

import pytest

from services.core.registry_place import RegistryPlace
from services.errors import BadInput


def test_a_name_and_a_password_come_from_the_url_or_beside_it() -> None:
    """What is shown of the place holds neither."""
    place = RegistryPlace.of("https://me:p%40ss%2F@registry:5000/")
    assert (place.url, place.authority) == ("https://registry:5000", "registry:5000")
    assert (place.username, place.password) == ("me", "p@ss/")
    assert "p@ss" not in repr(place)
    beside = RegistryPlace.of("http://registry", username="me", password="pw")
    assert (beside.url, beside.username, beside.password) == ("http://registry", "me", "pw")
    assert RegistryPlace.of("http://me@registry", password="pw").password == "pw"


@pytest.mark.parametrize(
    "url",
    [
        "http://h:8081/repository/docker",
        "http://h:8081/v2/",
        "http://h?x=y",
        "ftp://h",
        "http://",
        "http://u:se/cret@h:5000",
        "http://[bad",
    ],
)
def test_a_place_that_engines_cannot_use_is_refused(url: str) -> None:
    """A path most of all; and no piece of a password is in what is said."""
    with pytest.raises(BadInput, match=r"URL of a registry|it has a path") as raised:
        RegistryPlace.of(url)
    assert "cret" not in str(raised.value)
    assert "se/" not in str(raised.value)


@pytest.mark.parametrize("beside", [{"token": "T"}, {"username": "u"}, {"password": "p"}])
def test_two_credentials_at_once_are_refused(beside: dict[str, str]) -> None:
    """One clear sentence instead of a request that says both."""
    with pytest.raises(BadInput, match="keep one of them") as raised:
        RegistryPlace.of("http://me:secret@h:5000", **beside)
    assert raised.value.code == "two_credentials"
    assert "secret" not in str(raised.value)
