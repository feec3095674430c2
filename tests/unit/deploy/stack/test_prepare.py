"""The data folder of the stack."""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.stack.prepare import main, prepare


def test_a_second_run_changes_no_secret(tmp_path: Path) -> None:
    """What is there stays: services and ranges keep the passwords they already use."""
    prepare(tmp_path, ranges=["range-1"])
    first = {path: path.read_text() for path in (tmp_path / "secrets").rglob("*") if path.is_file()}
    prepare(tmp_path, ranges=["range-1", "range-2"])
    second = {path: path.read_text() for path in (tmp_path / "secrets").rglob("*") if path.is_file()}
    assert len(first) == 4
    assert {path: second[path] for path in first} == first
    assert set(second) - set(first) == {tmp_path / "secrets/ranges/range-2/redis_url"}


def test_secrets_are_for_their_reader_alone(tmp_path: Path) -> None:
    """Nobody else on the host reads a secret, and no two are the same."""
    prepare(tmp_path, ranges=["range-1", "range-2"])
    files = [path for path in (tmp_path / "secrets").rglob("*") if path.is_file()]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o400 for path in files)
    assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in files)
    assert len({path.read_text() for path in files}) == len(files)


def test_a_range_logs_in_under_its_own_name(tmp_path: Path) -> None:
    """The URL a range's agent gets names its user and where Redis is on its network."""
    prepare(tmp_path, ranges=["range-1"])
    url = urlsplit((tmp_path / "secrets/ranges/range-1/redis_url").read_text().strip())
    assert (url.username, url.hostname, url.port) == ("range-range-1", "cyroid-redis", 6379)
    assert "user range-range-1 on" in (tmp_path / "redis/users.acl").read_text()


def test_a_forgotten_range_has_no_user_any_more(tmp_path: Path) -> None:
    """Taking a range away takes its secret and its user."""
    prepare(tmp_path, ranges=["range-1", "range-2"])
    prepare(tmp_path, forget=["range-1"])
    assert "range-range-1" not in (tmp_path / "redis/users.acl").read_text()
    assert "range-range-2" in (tmp_path / "redis/users.acl").read_text()


@pytest.mark.parametrize("name", ["", "../services", "a b", "*", "x" * 64])
def test_what_is_no_range_id_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that leaves the folder or is a glob ends the program with a line that says so."""
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path), "--ranges", name])
    assert end.value.code == 1
    assert "is no range id" in capsys.readouterr().err


def test_cyroids_redis_is_kept_for_the_services(tmp_path: Path) -> None:
    """Given once on standard input, read by its reader alone; one without a password is refused."""
    url = "redis://u:p@172.30.0.12:6379/0"
    prepare(tmp_path, redis_url=f"{url}\n")
    prepare(tmp_path)
    kept = tmp_path / "secrets/services/redis_url"
    assert kept.read_text() == f"{url}\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o400
    with pytest.raises(ValueError, match="without a password"):
        prepare(tmp_path, redis_url="redis://172.30.0.12:6379/0")
    assert kept.read_text() == f"{url}\n"
