"""The data folder of the stack."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.container.engine_proxy import RIGHTS
from deploy.container.prepare import UID, main, prepare
from services.api.authentication import Actor, parse_tokens, token_hash
from services.range_gateway.secrets import RangeSecrets


def test_a_second_run_changes_no_secret(tmp_path: Path) -> None:
    """What is there stays: services and ranges keep the passwords they already use."""
    prepare(tmp_path, ranges=["range-1"])
    first = {path: path.read_text() for path in (tmp_path / "secrets").rglob("*") if path.is_file()}
    prepare(tmp_path, ranges=["range-1", "range-2"])
    second = {path: path.read_text() for path in (tmp_path / "secrets").rglob("*") if path.is_file()}
    assert len(first) == 14
    assert {path: second[path] for path in first} == first
    added = {"ranges/range-2/redis_url", "gateway/ranges/range-2"}
    assert set(second) - set(first) == {tmp_path / "secrets" / name for name in added}


def test_another_key_prefix_has_users_of_its_own(tmp_path: Path) -> None:
    """Passwords stay when it changes; a URL that somebody gave is left as it is."""
    prepare(tmp_path)
    paths = {role: tmp_path / f"secrets/{role}/redis_url" for role in ("services", "gateway")}
    before = {role: urlsplit(path.read_text()) for role, path in paths.items()}
    prepare(tmp_path, prefix="b")
    after = {role: urlsplit(path.read_text()) for role, path in paths.items()}
    assert [url.username for url in after.values()] == ["b-services", "b-range-gateway"]
    assert {role: url.password for role, url in before.items()} == {role: url.password for role, url in after.items()}
    assert (tmp_path / "secrets/operator/redis_user").read_text() == "b-operator\n"
    assert "user b-services on" in (tmp_path / "redis/users.acl").read_text()
    prepare(tmp_path)
    assert {role: urlsplit(path.read_text()) for role, path in paths.items()} == before
    assert not (tmp_path / "secrets/operator/redis_user").exists()
    given = "redis://app:secret@cyroid-redis:6379/0"
    prepare(tmp_path, redis_url=given)
    prepare(tmp_path, prefix="b")
    assert paths["services"].read_text() == f"{given}\n"


def test_secrets_are_for_their_reader_alone(tmp_path: Path) -> None:
    """Nobody else on the host reads a secret; no two are the same, but that the layer-mounter has the services'."""
    prepare(tmp_path, ranges=["range-1", "range-2"])
    files = [path for path in (tmp_path / "secrets").rglob("*") if path.is_file()]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o400 for path in files)
    assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in files)
    services, mounter = (tmp_path / "secrets" / name / "redis_url" for name in ("services", "mounter"))
    assert services.read_text() == mounter.read_text()
    assert len({path.read_text() for path in files}) == len(files) - 1


def test_the_api_knows_the_hash_of_the_administrators_token(tmp_path: Path) -> None:
    """The token itself is root's; tokens that somebody added stay."""
    prepare(tmp_path)
    token = (tmp_path / "secrets/admin/api_token").read_text().strip()
    known = tmp_path / "secrets/services/api_tokens"
    assert parse_tokens(known.read_text()) == {token_hash(token): Actor("admin", "admin")}
    added = known.read_text() + f"eva viewer {token_hash('other')}\n"
    known.chmod(0o600)
    known.write_text(added)
    prepare(tmp_path)
    assert known.read_text() == added


def test_a_range_logs_in_under_its_own_name(tmp_path: Path) -> None:
    """The URL a range's agent gets names the range and its gateway; the gateway knows a sum, and Redis nobody."""
    prepare(tmp_path, ranges=["range-1"])
    url = urlsplit((tmp_path / "secrets/ranges/range-1/redis_url").read_text().strip())
    assert (url.scheme, url.username, url.hostname, url.port) == ("gateway", "range-1", "cyroid-gateway", 7071)
    assert RangeSecrets(tmp_path / "secrets/gateway/ranges").knows("range-1", url.password or "")
    assert (url.password or "") not in (tmp_path / "secrets/gateway/ranges/range-1").read_text()
    assert "range-1" not in (tmp_path / "redis/users.acl").read_text()


def test_a_range_from_before_the_gateway_keeps_its_secret(tmp_path: Path) -> None:
    """Its URL led to Redis; now it leads to the gateway."""
    old = tmp_path / "secrets/ranges/range-1/redis_url"
    old.parent.mkdir(parents=True)
    old.write_text("redis://range-range-1:0ld@cyroid-redis:6379/0\n")
    prepare(tmp_path)
    assert old.read_text() == "gateway://range-1:0ld@cyroid-gateway:7071\n"
    assert RangeSecrets(tmp_path / "secrets/gateway/ranges").knows("range-1", "0ld")


def test_a_forgotten_range_is_let_in_no_more(tmp_path: Path) -> None:
    """Taking a range away takes its secret and what the gateway knows of it."""
    prepare(tmp_path, ranges=["range-1", "range-2"])
    prepare(tmp_path, forget=["range-1"])
    assert [path.name for path in (tmp_path / "secrets/gateway/ranges").iterdir()] == ["range-2"]


def test_the_proxy_checks_what_the_deployer_signs(tmp_path: Path) -> None:
    """Both have the same key, and nobody else."""
    prepare(tmp_path)
    key = (tmp_path / "secrets/deployer/registry_pull_key").read_text().strip()
    assert f'jwt_verify(txn.alg,"{key}")' in (tmp_path / "secrets/proxy/haproxy.cfg").read_text()
    others = [path for path in (tmp_path / "secrets").rglob("*") if path.is_file() and key in path.read_text()]
    assert {path.parent.name for path in others} == {"deployer", "proxy"}


def test_nobody_of_the_hosts_reaches_a_roles_socket(tmp_path: Path) -> None:
    """A folder for each role, in one that only the containers' user enters; each is mounted without it."""
    prepare(tmp_path)
    assert stat.S_IMODE((tmp_path / "engine").stat().st_mode) == 0o700
    assert {path.name for path in (tmp_path / "engine").iterdir()} == set(RIGHTS)
    text = (tmp_path / "secrets/engine-proxy/haproxy.cfg").read_text()
    assert all(f"bind unix@/run/engine/{role}/engine.sock" in text for role in RIGHTS)


def test_what_a_tar_server_left_that_was_root_becomes_its_own(tmp_path: Path) -> None:
    """Exports of an earlier version, which the tar server then removes. What a link leads to is left alone."""
    (tmp_path / "spool/spools").mkdir(parents=True)
    (tmp_path / "spool/spools/export").touch()
    (tmp_path / "elsewhere").touch()
    (tmp_path / "spool/link").symlink_to(tmp_path / "elsewhere")
    prepare(tmp_path)
    expected = UID if os.geteuid() == 0 else os.geteuid()
    paths = [tmp_path / "spool", *(tmp_path / "spool").rglob("*")]
    assert {path.lstat().st_uid for path in paths} == {expected}
    assert (tmp_path / "elsewhere").stat().st_uid == os.geteuid()


@pytest.mark.parametrize("name", ["", "../services", "a b", "*", "x" * 64])
def test_what_is_no_range_id_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that leaves the folder or is a glob ends the program with a line that says so."""
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path), "--ranges", name])
    assert end.value.code == 1
    assert "is no range id" in capsys.readouterr().err


def test_a_password_with_signs_of_urls_is_the_users_password(tmp_path: Path) -> None:
    """In the URL it is escaped, in the list of users it is the password that is meant."""
    prepare(
        tmp_path, redis_url="rediss+sentinel://cyroid:a%2Fb%40c@10.0.0.1:1,10.0.0.2:2/images/0?sentinel_password=x\n"
    )
    assert f"#{hashlib.sha256(b'a/b@c').hexdigest()} " in (tmp_path / "redis/users.acl").read_text()


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
