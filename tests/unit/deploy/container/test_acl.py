"""Redis's users, as Redis itself judges them."""

from __future__ import annotations

import hashlib

import pytest

from deploy.container.acl import Passwords, gateway_rules, literal, users_file

PASSWORDS = Passwords(services="s", gateway="g", operator="o", admin="a", replica="r", sentinel="n")


def test_every_user_has_a_password_and_none_is_readable() -> None:
    """The list holds SHA-256 sums only, no user without one; `default` cannot log in."""
    default, *lines = users_file("cyroid", PASSWORDS).splitlines()
    assert default.startswith("user default off ")
    assert [line.split()[1] for line in lines] == [
        "operator",
        "cyroid",
        "range-gateway",
        "admin",
        "replica",
        "sentinel",
    ]
    assert all(line.split()[2:4] == ["on", "resetpass"] and line.split()[4].startswith("#") for line in lines)
    assert not any("nopass" in line for line in lines)
    assert f"#{hashlib.sha256(b'g').hexdigest()}" in lines[2]


def test_the_gateway_has_the_keys_of_ranges() -> None:
    """Nothing of what services keep to themselves; of the streams that they share it may only add to one."""
    whole = [rule for rule in gateway_rules("cyroid") if rule.startswith(("~", "%"))]
    assert {"~cyroid:range:*"} < set(whole)
    assert not any(word in rule for rule in whole for word in ("images", "deployments", "offer", "cyroid:*"))
    (shared,) = [rule for rule in gateway_rules("cyroid") if rule.startswith("(")]
    assert "+xadd" in shared
    assert not any(word in shared for word in ("+xrange", "+xread", "+del", "+@"))


def test_users_of_two_installations_have_no_name_in_common() -> None:
    """With a key prefix of its own an installation has users of its own, who see nothing of the other's keys."""
    first, second = (
        {line.split()[1]: line for line in users_file(prefix, PASSWORDS).splitlines()[1:]} for prefix in ("cyroid", "b")
    )
    assert set(first) == {"operator", "cyroid", "range-gateway", "admin", "replica", "sentinel"}
    assert set(second) == {
        f"b-{role}" for role in ("operator", "services", "range-gateway", "admin", "replica", "sentinel")
    }
    patterns = [word for line in second.values() for word in line.split() if word.startswith(("~", "%"))]
    assert all(word.lstrip("%R~").startswith("b:") for word in patterns)


@pytest.mark.parametrize("text", ["*", "a?b", "a)", "(b", "x y", "[a]", "a\nuser evil on nopass ~* +@all"])
def test_a_name_that_would_widen_the_pattern_is_refused(text: str) -> None:
    """A key prefix cannot become a glob or a second user."""
    with pytest.raises(ValueError, match="key pattern"):
        literal(text)
    with pytest.raises(ValueError, match="key pattern"):
        users_file(text, PASSWORDS)
