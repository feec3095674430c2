"""Settings from the environment."""

from pathlib import Path

import msgspec
import pytest

from services.errors import BadInput
from services.runtime.environment import documentation, read_settings, variable_of
from services.settings import Settings


def test_an_empty_environment_gives_the_defaults() -> None:
    """Nothing has to be set to start on one machine."""
    assert read_settings({}) == Settings()


def test_every_field_is_documented_and_has_a_default() -> None:
    """Each field carries a sentence, which the CLI prints."""
    documented = documentation()
    assert [field.name for field in msgspec.structs.fields(Settings)] == list(documented)
    assert all(len(sentence) > 20 for sentence in documented.values())


def test_values_are_converted() -> None:
    """Texts become the types of their fields."""
    settings = read_settings(
        {
            "CYROID_LEASE_SECONDS": "7.5",
            "CYROID_AUTO_PUSH": "false",
            "CYROID_PARALLEL_LAYERS": " 5 ",
            "CYROID_RANGE_ID": "range-7",
            "CYROID_LAYER_CODEC": "zstd",
        }
    )
    assert settings.lease_seconds == 7.5
    assert settings.auto_push is False
    assert settings.parallel_layers == 5
    assert settings.range_id == "range-7"
    assert settings.layer_codec == "zstd"


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("CYROID_REDS_URL", "redis://h", "there is no such setting; did you mean CYROID_REDIS_URL?"),
        ("CYROID_ZZZZZZZZ", "1", "there is no such setting; `cyroid-images settings` lists all names"),
        ("CYROID_KEY_PREFIX_FILE", "/x", "there is no such setting; did you mean CYROID_KEY_PREFIX?"),
        ("CYROID_REGISTRY_URL", "http://h:1/a/b", "it has a path after h:1: engines"),
        ("CYROID_TAR_URL", "http://me:pw@h:1", "it holds a user name"),
        ("CYROID_REDIS_URL", "http://h", "must be a URL such as redis://127.0.0.1:6379/0"),
        ("CYROID_LEASE_SECONDS", "soon", "must be a number of seconds from 3 to 600, not 'soon'"),
        ("CYROID_LEASE_SECONDS", "1", "must be a number of seconds from 3 to 600, not '1'"),
        ("CYROID_LEASE_SECONDS", "nan", "must be a number of seconds from 3 to 600, not 'nan'"),
        ("CYROID_STALL_SECONDS", "0", "must be a number of seconds above 0, not '0'"),
        ("CYROID_AUTO_PUSH", "maybe", "must be true or false, not 'maybe'"),
        ("CYROID_LAYER_CODEC", "gzip", "must be one of raw, zstd, auto, not 'gzip'"),
        ("CYROID_PARALLEL_LAYERS", "0", "must be a whole number from 1, not '0'"),
        ("CYROID_PARALLEL_LAYERS", "1.5", "must be a whole number from 1, not '1.5'"),
        ("CYROID_SPOOL_LIMIT_BYTES", "20GB", "must be a number of bytes from 0, not '20GB'"),
        ("CYROID_RANGE_ID", "a b", "must be letters, digits, dots, dashes and underscores, not 'a b'"),
        ("CYROID_API_LISTEN", "8070", "must be HOST:PORT, not '8070'"),
        ("CYROID_REGISTRY_ADDRESS", "http://h:5000", "must be HOST or HOST:PORT"),
        ("CYROID_HOST_ENGINE_URL", "/var/run/docker.sock", "must be an engine's address such as unix:///"),
        ("CYROID_KEY_PREFIX", "a*", "must be text without spaces or globs, not 'a*'"),
        ("CYROID_REGISTRY_TOKEN_FILE", "/does/not/exist", "cannot read /does/not/exist: No such file or directory"),
    ],
)
def test_what_is_wrong_stops_with_name_and_reason(variable: str, value: str, reason: str) -> None:
    """The message begins with the variable's name and says what would be right."""
    with pytest.raises(BadInput) as caught:
        read_settings({variable: value})
    assert str(caught.value).startswith(f"{variable}: {reason}")
    assert caught.value.code == "bad_setting"


def test_everything_wrong_is_said_at_once() -> None:
    """One start shows all mistakes, a line each."""
    with pytest.raises(BadInput) as caught:
        read_settings({"CYROID_AUTO_PUSH": "x", "CYROID_NOPE": "1", "CYROID_LOG_LEVEL": "loud"})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "CYROID_AUTO_PUSH",
        "CYROID_LOG_LEVEL",
        "CYROID_NOPE",
    ]


def test_names_of_other_services_are_left_alone() -> None:
    """CYROID's own variables do not stop the start, nor does anything without the prefix."""
    assert read_settings({"CYROID_DATA_DIR": "/data", "CYROID_MGMT_NETWORK": "m", "PATH": "/bin"}) == Settings()


def test_an_empty_value_means_the_default() -> None:
    """Compose passes unset variables on as empty ones."""
    assert read_settings({"CYROID_LEASE_SECONDS": "", "CYROID_REDIS_URL": ""}) == Settings()


def test_secrets_come_from_files(tmp_path: Path) -> None:
    """`X_FILE` gives a secret's content without its line end, and clashes with `X`."""
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    assert read_settings({"CYROID_REGISTRY_TOKEN_FILE": str(secret)}).registry_token == "s3cret"
    with pytest.raises(BadInput, match="not both"):
        read_settings({"CYROID_REGISTRY_TOKEN_FILE": str(secret), "CYROID_REGISTRY_TOKEN": "other"})


def test_secrets_are_never_shown() -> None:
    """Neither the structure's text nor a complaint holds a password."""
    settings = read_settings({"CYROID_REDIS_URL": "redis://me:hunter2@h:1/0", "CYROID_REGISTRY_PASSWORD": "hunter2"})
    assert "hunter2" not in repr(settings)
    assert "redis://me:***@h:1/0" in repr(settings)
    with pytest.raises(BadInput) as caught:
        read_settings({"CYROID_REDIS_URL": "rediss//me:hunter2@h:1/0"})
    assert "hunter2" not in str(caught.value)


def test_flags_win_over_the_environment() -> None:
    """A flag that is given replaces the variable, one that is not leaves it."""
    settings = read_settings(
        {"CYROID_REDIS_URL": "redis://a:1/0", "CYROID_KEY_PREFIX": "x"}, redis_url="redis://b:2/0", key_prefix=None
    )
    assert settings.redis_url == "redis://b:2/0"
    assert settings.key_prefix == "x"
    with pytest.raises(BadInput, match=r"^--lease-seconds: must be"):
        read_settings({}, lease_seconds="x")


def test_a_variable_is_the_prefix_and_the_name() -> None:
    """The rule that the documentation gives."""
    assert variable_of("redis_url") == "CYROID_REDIS_URL"
