"""Host reclaim's rules: which one decides, and which names a pattern fits."""

from __future__ import annotations

import pytest

from services.core.images.reclaim_rules import ReclaimRule, ReclaimRules, fits
from services.core.images.references import Reference


def test_without_a_rule_the_host_keeps_its_copy() -> None:
    """Nothing goes by default."""
    assert ReclaimRules().after_days("docker.io/team/app:1") is None


def test_the_first_rule_that_fits_decides() -> None:
    """Also where it says that copies stay."""
    rules = (
        ReclaimRules().with_rule(ReclaimRule(pattern="*/team/*", after_days=None)).with_rule(ReclaimRule(pattern="*"))
    )
    assert rules.after_days("docker.io/team/app:1") is None
    assert rules.after_days("docker.io/library/web:1") == 0.0


def test_a_rule_takes_the_place_of_the_one_with_its_pattern() -> None:
    """And goes by its pattern."""
    rules = ReclaimRules().with_rule(ReclaimRule(pattern="a*")).with_rule(ReclaimRule(pattern="b*"))
    changed = rules.with_rule(ReclaimRule(pattern="a*", after_days=2.0))
    assert [(one.pattern, one.after_days) for one in changed.rules] == [("a*", 2.0), ("b*", 0.0)]
    assert changed.without("a*").rules == (ReclaimRule(pattern="b*"),)


@pytest.mark.parametrize(
    ("pattern", "fit"), [("nginx:*", True), ("docker.io/library/*", True), ("*", True), ("ngin", False)]
)
def test_a_pattern_fits_the_full_or_the_familiar_name(pattern: str, fit: bool) -> None:
    """As people write it, or as it is on the wire."""
    assert fits(Reference.parse("nginx:1.27"), ["none", pattern]) is fit
