"""What of a URL may be shown."""

import msgspec
import pytest

from services.core.secrets import shown, without_password
from services.settings import Settings

FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:hunter2@h:1/0", "redis://:***@h:1/0"),
        ("redis://me:hun@ter2@h:1", "redis://me:***@h:1"),
        ("https://hunter2@h/x", "https://***@h/x"),
        ("redis://h:1/0?password=hunter2&db=1", "redis://h:1/0?password=***&db=1"),
        (
            "a redis+sentinel://u:hunter2@h:1,i:2/M and http://x:hunter2@y",
            "a redis+sentinel://u:***@h:1,i:2/M and http://x:***@y",
        ),
        (
            "rediss+sentinel://u:hunter2@h:1,i/M/0?sentinel_username=s&sentinel_password=hunter2&ssl_password=hunter2",
            "rediss+sentinel://u:***@h:1,i/M/0?sentinel_username=s&sentinel_password=***&ssl_password=***",
        ),
        ("http://h:5000/v2/a/manifests/x@sha256:1", "http://h:5000/v2/a/manifests/x@sha256:1"),
        ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
    ],
)
def test_every_url_in_a_text_is_masked(text: str, masked: str) -> None:
    """Names stay, so that people can tell which one it is."""
    assert without_password(text) == masked


@pytest.mark.parametrize("name", ["redis_url", "registry_url", "tar_url", "host_engine_url", "engine_url"])
@pytest.mark.parametrize("value", ["x://me:hun/ter2@h:1/0", "x://me:hun@ter2@h", "me:hunter2@h", "x://hunter2@h"])
def test_a_setting_that_is_a_url_is_masked_however_it_is_written(name: str, value: str) -> None:
    """Also one that is written wrongly."""
    text = shown(FIELDS[name], value)
    assert "hun" not in text
    assert "ter2" not in text
    assert text.endswith(value.rpartition("@")[2])
