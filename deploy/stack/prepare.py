"""Makes the stack's data folder: folders with their owners, secrets, Redis's users. Runs again at every start.

    python -m deploy.stack.prepare FOLDER [--ranges ID…] [--forget ID…] [--redis-url -]

The secrets folder is the truth: what is missing is made, what is there stays, and the list of Redis's users is written
from it. Adding a range is making its secret and telling Redis to read the list again (`deploy.stack.ranges`).

    FOLDER/registry          the registry's content
    FOLDER/redis             Redis's data, and users.acl
    FOLDER/spool             exports while ranges read them
    FOLDER/secrets/services/redis_url, operator/redis_password, admin/redis_password, ranges/ID/redis_url
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from deploy.stack.acl import Passwords, range_user, users_file

#: The user of every container that needs no more (deploy/Dockerfile).
UID = 10001
REDIS = "cyroid-redis:6379/0"
RANGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def prepare(
    folder: Path,
    *,
    ranges: Iterable[str] = (),
    forget: Iterable[str] = (),
    prefix: str = "cyroid",
    redis_url: str | None = None,
) -> None:
    """Bring `folder` into shape. `redis_url`: somebody else's Redis, for the services, instead of what is there.

    Raises ValueError for a range id that cannot be one, and for a URL without a password.
    """
    for name, owner, mode in (
        ("registry", UID, 0o755),
        ("redis", UID, 0o700),
        ("spool", 0, 0o700),
        ("secrets", 0, 0o711),
    ):
        _folder(folder / name, owner, mode)
    vault = folder / "secrets"
    for name in ranges:
        if not RANGE_ID.fullmatch(name):
            raise ValueError(f"{name!r} is no range id: letters, digits, dots, dashes and underscores, at most 63")
        _url(vault / "ranges" / name / "redis_url", range_user(name), owner=0)
    for name in forget:
        if RANGE_ID.fullmatch(name):
            shutil.rmtree(vault / "ranges" / name, ignore_errors=True)
    if redis_url is not None:
        _password_in(redis_url)
        _write(vault / "services" / "redis_url", f"{redis_url.strip()}\n", owner=UID, mode=0o400)
    passwords = Passwords(
        services=_url(vault / "services" / "redis_url", "cyroid", owner=UID),
        operator=_password(vault / "operator" / "redis_password", owner=UID),
        admin=_password(vault / "admin" / "redis_password", owner=0),
        ranges={path.parent.name: _password_in(path.read_text()) for path in vault.glob("ranges/*/redis_url")},
    )
    _write(folder / "redis" / "users.acl", users_file(prefix, passwords), owner=UID, mode=0o600)


def _url(path: Path, user: str, *, owner: int) -> str:
    """The password of `user`, whose URL is made at `path` if it is not there."""
    if not path.exists():
        _write(path, f"redis://{user}:{secrets.token_hex(24)}@{REDIS}\n", owner=owner, mode=0o400)
    return _password_in(path.read_text())


def _password(path: Path, *, owner: int) -> str:
    if not path.exists():
        _write(path, secrets.token_hex(24) + "\n", owner=owner, mode=0o400)
    return path.read_text().strip()


def _password_in(url: str) -> str:
    password = urlsplit(url.strip()).password
    if not password:
        raise ValueError("a Redis URL without a password: every range could read and write everything")
    return password


def _folder(path: Path, owner: int, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    _own(path, owner)


def _write(path: Path, text: str, *, owner: int, mode: int) -> None:
    """All of it or nothing, and never readable by others for a moment."""
    _folder(path.parent, owner, 0o700)  # the engine makes it, for everybody to look in, where a mount came first
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    _own(new, owner)
    new.replace(path)


def _own(path: Path, owner: int) -> None:
    """Give it to `owner`; who is not root prepares a folder for processes of its own."""
    if os.geteuid() == 0:
        os.chown(path, owner, owner)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="deploy.stack.prepare", description="Make the stack's data folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranges", nargs="*", default=[], metavar="ID", help="ranges that get a secret")
    parser.add_argument("--forget", nargs="*", default=[], metavar="ID", help="ranges whose secret is taken away")
    parser.add_argument("--redis-url", choices=["-"], help="read the URL of the services' Redis from standard input")
    parser.add_argument("--prefix", default="cyroid", help="what every Redis key begins with")
    options = parser.parse_args(arguments)
    url = sys.stdin.readline() if options.redis_url else None
    try:
        prepare(options.folder, ranges=options.ranges, forget=options.forget, prefix=options.prefix, redis_url=url)
    except (OSError, ValueError) as problem:
        parser.exit(1, f"cannot prepare {options.folder}: {problem}\n")


if __name__ == "__main__":
    main()
