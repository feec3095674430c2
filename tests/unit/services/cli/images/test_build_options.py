"""The values of `images build`'s options."""

from pathlib import Path

import click
import pytest

from services.cli.images import build_options


def test_a_secret_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `docker buildx build --secret` takes it."""
    (tmp_path / "key").write_bytes(b"from a file\n")
    monkeypatch.setenv("TOKEN_OF_TEST", "from the environment")
    monkeypatch.chdir(tmp_path)
    found = build_options.read_secrets(
        [f"id=a,src={tmp_path}/key", "type=env,id=b,env=TOKEN_OF_TEST", "id=TOKEN_OF_TEST", "id=key"]
    )
    assert found == {
        "a": b"from a file\n",
        "b": b"from the environment",
        "TOKEN_OF_TEST": b"from the environment",
        "key": b"from a file\n",
    }


@pytest.mark.parametrize(
    "text", ["src=/x", "id=a,src=/x,env=Y", "id=a,color=red", "a", "id=a,src=/nonexistent", "id=a,env=NOT_SET_HERE"]
)
def test_a_secret_that_is_none_is_refused(text: str) -> None:
    """Before anything is sent."""
    with pytest.raises(click.UsageError):
        build_options.read_secrets([text])


def test_a_secret_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """BuildKit would refuse it in the middle of the build."""
    (tmp_path / "large").write_bytes(bytes(500 * 1024 + 1))
    with pytest.raises(click.UsageError, match="larger than 512000 bytes"):
        build_options.read_secrets([f"id=a,src={tmp_path}/large"])


def test_caches_are_images() -> None:
    """Read from references, written into the image; any other kind is refused by name."""
    assert build_options.caches(["one:1", "type=registry,ref=two:2"]) == ("one:1", "two:2")
    assert build_options.caches_inline(["type=inline"])
    assert build_options.caches_inline(["inline"])
    assert not build_options.caches_inline([])
    with pytest.raises(click.UsageError, match="type=inline"):
        build_options.caches_inline(["type=registry,ref=x:1"])
    with pytest.raises(click.UsageError, match="type=registry"):
        build_options.caches(["type=local,src=/x"])


def test_an_argument_without_a_value_has_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or none at all where that has none."""
    monkeypatch.setenv("WORD_OF_TEST", "w")
    assert build_options.pairs(["A=1=2", "WORD_OF_TEST", "NOT_SET_HERE"], "--build-arg") == {
        "A": "1=2",
        "WORD_OF_TEST": "w",
    }
    with pytest.raises(click.UsageError, match="--build-arg"):
        build_options.pairs(["=x"], "--build-arg")
