"""Access control lists of Redis: a user for the services, one for the range gateway, one that reads, one that manages
users; and one each for replicas and sentinels, where there are some.

Ranges have none: their agents speak with the gateway (`services.range_gateway`). The gateway's user has the keys of
ranges and what it needs to say that it runs and which range met a limit, and none of what only services may read or
write: images, deployments, offers.

The bus's scripts run under the caller's own rights. Passwords appear only as SHA-256, as `ACL LIST` shows them.

Users do not replicate: every server has to have this list (`deploy.container.redis_users`).

Installations that share a Redis have a key prefix each, and users of their own: `user_name`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: Without CLIENT SETINFO, which is newer than 7.0; clients go on without.
CONNECTION = (
    "+auth",
    "+hello",
    "+ping",
    "+quit",
    "+reset",
    "+client|setname",
    "+client|getname",
    "+client|id",
)
#: The key prefix of installations that never chose one; its users keep the names that they always had.
DEFAULT_PREFIX = "cyroid"
Role = Literal["services", "range-gateway", "operator", "admin", "replica", "sentinel"]
#: Nobody logs in as `default`, but it may everything: as this user Redis replays its append-only file, and would drop
#: from it at a restart whatever the user may not do (7.0, EXEC in `loadSingleAppendOnlyFile`).
NOBODY = "user default off resetpass resetkeys ~* &* +@all"


@dataclass(frozen=True, slots=True)
class Passwords:
    """The passwords of Redis's users, in the clear, as read from the secrets folder."""

    services: str
    gateway: str
    operator: str
    admin: str
    replica: str
    sentinel: str


def user_name(prefix: str, role: Role) -> str:
    """The name of an installation's user: with another prefix than the default one it begins with that.

    So a second installation on the same Redis replaces no user of the first. Raises ValueError for a prefix that
    cannot be a part of a name.
    """
    if prefix != DEFAULT_PREFIX:
        return f"{literal(prefix)}-{role}"
    return "cyroid" if role == "services" else role


def gateway_rules(prefix: str) -> list[str]:
    """Rules of the range gateway's user.

    Everything on the keys of ranges, and which host has each; on the streams that services share only the event that a
    range exceeded a limit; neither the names of keys nor anything that administers Redis.
    """
    own = literal(prefix)
    shared = [
        f"{own}:range-host:*",
        f"{own}:role:*",
        f"{own}:index:roles",
        f"{own}:limited:*",
        f"{own}:index:limited",
        f"{own}:ping",
        f"{own}:confirmed",
    ]
    return [
        "resetchannels",
        *(f"~{key}" for key in (f"{own}:range:*", *shared)),
        "+@all",
        "-@admin",
        "-@dangerous",
        *("-keys", "-scan", "-randomkey", "-flushdb", "-flushall"),
        *("+info", "+config|get", "+role"),
        _selector([f"{own}:deployments", f"{own}:deployments:seen:*"], ("+xadd", "+set", "+type", "+evalsha")),
    ]


def services_rules(prefix: str) -> list[str]:
    """Rules of the services' user: everything under the prefix, nothing that administers Redis."""
    return [
        "resetchannels",
        f"~{literal(prefix)}:*",
        "+@all",
        "-@admin",
        "-@dangerous",
        *("+info", "+config|get", "+role", "+client|list", "+keys"),
    ]


def operator_rules(prefix: str = DEFAULT_PREFIX) -> list[str]:
    """Rules of a person with `redis-cli`: reads everything, changes nothing.

    Of an installation that shares a Redis under a prefix of its own, what is under that prefix.
    """
    keys = "%R~*" if prefix == DEFAULT_PREFIX else f"%R~{literal(prefix)}:*"
    reading = (
        "+info",
        "+client|list",
        "+config|get",
        "+acl|whoami",
        "+acl|list",
        "+acl|log",
        "+slowlog|get",
        "+command",
    )
    return ["resetchannels", keys, "-@all", "+@read", "+@connection", "-client|kill", "-client|pause", *reading]


def admin_rules() -> list[str]:
    """Rules of the user who manages users. Not ACL LOAD: until Redis 7.2 that closes everybody's connection."""
    managing = (f"+acl|{verb}" for verb in ("setuser", "deluser", "list", "whoami", "save"))
    return ["resetchannels", "-@all", *CONNECTION, "+role", *managing]


def replica_rules() -> list[str]:
    """Rules of the user as whom a replica copies everything from its master (`masteruser`)."""
    return ["resetchannels", "-@all", "+psync", "+replconf", "+ping"]


def sentinel_rules() -> list[str]:
    """Rules of the user as whom sentinels watch the servers and make another one the master; no keys."""
    watching = ("+ping", "+info", "+role", "+publish", "+subscribe", "+client|setname")
    changing = ("+multi", "+exec", "+slaveof", "+config|rewrite", "+client|kill", "+script|kill")
    return ["resetchannels", "&__sentinel__:hello", "-@all", *watching, *changing]


def users_file(prefix: str, passwords: Passwords) -> str:
    """The text of the `aclfile`: the default user is off, and every user has a password."""
    users = [
        NOBODY,
        _user(user_name(prefix, "operator"), passwords.operator, operator_rules(prefix)),
        _user(user_name(prefix, "services"), passwords.services, services_rules(prefix)),
        _user(user_name(prefix, "range-gateway"), passwords.gateway, gateway_rules(prefix)),
        _user(user_name(prefix, "admin"), passwords.admin, admin_rules()),
        _user(user_name(prefix, "replica"), passwords.replica, replica_rules()),
        _user(user_name(prefix, "sentinel"), passwords.sentinel, sentinel_rules()),
    ]
    return "".join(f"{user}\n" for user in users)


def literal(text: str) -> str:
    """`text` escaped as a part of a key pattern. Raises ValueError where a pattern cannot express it."""
    if any(sign in text for sign in "*?[]()\\^ \t\r\n"):
        raise ValueError(f"{text!r} cannot be a part of a Redis key pattern")
    return text


def _selector(keys: Sequence[str], commands: Sequence[str]) -> str:
    """Rights on some keys alone (Redis 7.0 and newer): a command must be allowed by one of them as a whole."""
    return f"({' '.join(['-@all', *(f'~{key}' for key in keys), *commands])})"


def _user(name: str, password: str, rules: list[str]) -> str:
    digest = hashlib.sha256(password.encode()).hexdigest()
    return " ".join(["user", name, "on", "resetpass", f"#{digest}", "resetkeys", *rules])
