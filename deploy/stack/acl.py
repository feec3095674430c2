"""Who may do what in Redis: one user for the services, one per range, one to read, one to add ranges.

A range is hostile, so its user is a list of what its agent does, not of what is forbidden, key by key:

    PREFIX:range:ID:inbox                     read as a group, trimmed; a stream whatever happens
                    inbox:*                   what the bus keeps for that group: counts, times, outcomes, locks
                    cancelled:*               its own notes
                    alive                     its heartbeat
                    outbox, progress, dead    entries added, nothing else: services read these, together with others',
                                              and their helper keys (`outbox:deferred:deployer`, …) are the services'
                    outbox:seen:*             the ids of what it said

The bus's scripts run under the caller's own rights. Passwords appear only as SHA-256, as `ACL LIST` shows them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
#: What `events.redis_bus` calls on a range's inbox, and the commands inside its scripts.
STREAM_COMMANDS = (
    "+xadd",
    "+xread",
    "+xreadgroup",
    "+xack",
    "+xclaim",
    "+xpending",
    "+xrange",
    "+xrevrange",
    "+xlen",
    "+xdel",
    "+xtrim",
    "+xinfo|groups",
    "+xinfo|consumers",
    "+xgroup|create",
    "+xgroup|delconsumer",
    "+type",
)
#: What the bus calls on the keys that it keeps for the inbox, and on records.
RECORD_COMMANDS = (
    "+get",
    "+set",
    "+del",
    "+exists",
    "+pexpire",
    "+hget",
    "+hset",
    "+hdel",
    "+hmget",
    "+hincrby",
    "+persist",
    "+zadd",
    "+zrem",
    "+zrange",
    "+zrangebyscore",
    "+zscore",
    "+zcard",
    "+type",
)
#: On what services read: XADD makes a stream or nothing, so that this user cannot put anything else there.
SAY_COMMANDS = ("+xadd", "+type")
#: Nobody logs in as `default`, but it may everything: as this user Redis replays its append-only file, and would drop
#: from it at a restart whatever the user may not do (7.0, EXEC in `loadSingleAppendOnlyFile`).
NOBODY = "user default off resetpass resetkeys ~* &* +@all"
#: By digest only: the services load them, and a range has no way to run a script of its own.
SCRIPTING = ("+evalsha",)


@dataclass(frozen=True, slots=True)
class Passwords:
    """In the clear, as read from the secrets folder; `ranges` by range id."""

    services: str
    operator: str
    admin: str
    ranges: Mapping[str, str]


def range_user(range_id: str) -> str:
    """The name under which the agent of a range logs in."""
    return f"range-{range_id}"


def range_rules(prefix: str, range_id: str) -> list[str]:
    """What the agent of one range may: its own keys, and on each kind of them the commands that it uses."""
    own = f"{literal(prefix)}:range:{literal(range_id)}"
    return [
        "resetchannels",
        "-@all",
        *CONNECTION,
        *("+info", "+time"),  # the bus asks for the version at its start, and for the time
        _selector([f"{own}:inbox"], STREAM_COMMANDS),
        _selector([f"{own}:inbox:*", f"{own}:cancelled:*"], RECORD_COMMANDS),
        _selector([f"{own}:outbox", f"{own}:progress", f"{own}:dead"], SAY_COMMANDS),
        _selector([f"{own}:outbox:seen:*"], ("+set",)),
        _selector([f"{own}:alive"], ("+set", "+get", "+mget")),
        _selector([f"{own}:*"], SCRIPTING),
    ]


def services_rules(prefix: str) -> list[str]:
    """This project's services: everything under the prefix, nothing that administers Redis."""
    return [
        "resetchannels",
        f"~{literal(prefix)}:*",
        "+@all",
        "-@admin",
        "-@dangerous",
        *("+info", "+config|get", "+role", "+client|list", "+keys"),
    ]


def operator_rules() -> list[str]:
    """A person with `redis-cli`: reads everything, changes nothing."""
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
    return ["resetchannels", "%R~*", "-@all", "+@read", "+@connection", "-client|kill", "-client|pause", *reading]


def admin_rules() -> list[str]:
    """Whoever adds and removes ranges. Not ACL LOAD: until Redis 7.2 that closes everybody's connection."""
    return ["resetchannels", "-@all", *CONNECTION, "+acl|setuser", "+acl|deluser", "+acl|list", "+acl|whoami"]


def users_file(prefix: str, passwords: Passwords) -> str:
    """The whole `aclfile`: anonymous is nobody, and every user has a password."""
    users = [
        NOBODY,
        _user("operator", passwords.operator, operator_rules()),
        _user("cyroid", passwords.services, services_rules(prefix)),
        _user("admin", passwords.admin, admin_rules()),
    ]
    users += [
        _user(range_user(name), word, range_rules(prefix, name)) for name, word in sorted(passwords.ranges.items())
    ]
    return "".join(f"{user}\n" for user in users)


def set_user(line: str) -> list[str]:
    """The command that makes a running Redis know the user of one line of `users_file`."""
    kind, name, *rules = line.split()
    if kind != "user" or not rules:
        raise ValueError("this is no line of a list of users")
    return ["ACL", "SETUSER", name, "reset", *rules]


def literal(text: str) -> str:
    """`text` as a part of a key pattern that means itself. Raises ValueError where a pattern cannot say it."""
    if any(sign in text for sign in "*?[]()\\^ \t\r\n"):
        raise ValueError(f"{text!r} cannot be a part of a Redis key pattern")
    return text


def _selector(keys: Sequence[str], commands: Sequence[str]) -> str:
    """Rights on some keys alone (Redis 7.0 and newer): a command must be allowed by one of them as a whole."""
    return f"({' '.join(['-@all', *(f'~{key}' for key in keys), *commands])})"


def _user(name: str, password: str, rules: list[str]) -> str:
    digest = hashlib.sha256(password.encode()).hexdigest()
    return " ".join(["user", name, "on", "resetpass", f"#{digest}", "resetkeys", *rules])
