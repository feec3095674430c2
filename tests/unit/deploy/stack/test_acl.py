"""Redis's users, as Redis itself judges them."""

from __future__ import annotations

import hashlib

import pytest

from deploy.stack.acl import Passwords, literal, range_rules, users_file

SAID = ("-@all", *(f"~cyroid:range:7:{name}" for name in ("outbox", "progress", "dead")), "+xadd", "+type")
PASSWORDS = Passwords(services="s", operator="o", admin="a", ranges={"7": "seven", "8": "eight"})


def test_every_user_has_a_password_and_none_is_readable() -> None:
    """The list holds SHA-256 sums only, no user without one; `default` cannot log in."""
    default, *lines = users_file("cyroid", PASSWORDS).splitlines()
    assert default.startswith("user default off ")
    assert [line.split()[1] for line in lines] == ["operator", "cyroid", "admin", "range-7", "range-8"]
    assert all(line.split()[2:4] == ["on", "resetpass"] and line.split()[4].startswith("#") for line in lines)
    assert not any("nopass" in line for line in lines)
    assert f"#{hashlib.sha256(b'seven').hexdigest()}" in lines[3]
    assert "seven" not in "".join(lines)


def test_a_range_has_its_own_keys_alone() -> None:
    """Key patterns below its own name, each with commands by name: no category is handed out."""
    words = " ".join(range_rules("cyroid", "7")).replace("(", " ").replace(")", " ").split()
    patterns = [word for word in words if word.startswith(("~", "%"))]
    assert patterns
    assert all(pattern.startswith("~cyroid:range:7:") for pattern in patterns)
    assert "allkeys" not in words
    assert not any(word.startswith("+@") for word in words)


def test_a_range_adds_to_what_services_read_and_does_nothing_else_there() -> None:
    """No rule that names the outbox, the progress or the dead letters hands out more than XADD and TYPE."""
    selectors = [rule for rule in range_rules("cyroid", "7") if "outbox " in rule]
    assert [rule for rule in selectors if rule != f"({' '.join(SAID)})"] == []


@pytest.mark.parametrize("text", ["*", "a?b", "a)", "(b", "x y", "[a]", "a\nuser evil on nopass ~* +@all"])
def test_a_name_that_would_widen_the_pattern_is_refused(text: str) -> None:
    """A range id cannot become a glob or a second user."""
    with pytest.raises(ValueError, match="key pattern"):
        literal(text)
    with pytest.raises(ValueError, match="key pattern"):
        users_file("cyroid", Passwords(services="s", operator="o", admin="a", ranges={text: "p"}))
