"""No secret of a URL in a setting leaves by any way out: each setting at each of them."""

from __future__ import annotations

import msgspec
import pytest
from click.testing import CliRunner

from services.cli import main
from services.core.secrets import is_url
from services.runtime.environment import variable_of
from services.settings import Settings

SECRET = "hunter2-of-test"
SCHEMES = {"redis_url": "redis", "host_engine_url": "tcp", "engine_url": "tcp"}
URLS = [field.name for field in msgspec.structs.fields(Settings) if is_url(field)]
WAYS_OUT = (
    ("settings",),
    ("settings", "--json"),
    ("images", "ls"),
    ("ranges", "ls", "--json"),
    ("doctor",),
    ("doctor", "--json"),
)


def test_every_setting_that_is_a_url_is_marked() -> None:
    """By its name: whoever adds one has to mark it."""
    named = [field.name for field in msgspec.structs.fields(Settings) if field.name.endswith("_url")]
    assert sorted(URLS) == sorted(named)


@pytest.mark.parametrize("way", WAYS_OUT, ids=" ".join)
def test_a_password_in_a_url_leaves_by_no_way_out(way: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each URL has a password of its own. Nothing answers at these addresses, so errors are among what is said."""
    for name in URLS:
        url = f"{SCHEMES.get(name, 'http')}://me:{SECRET}-{name}@127.0.0.1:1"
        monkeypatch.setenv(variable_of(name), url)
    result = CliRunner().invoke(main, list(way))
    said = result.output + result.stderr + repr(result.exception)
    assert said.strip()
    assert [name for name in URLS if f"{SECRET}-{name}" in said] == []
    assert SECRET not in said
