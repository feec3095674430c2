"""Retention rules."""

from collections.abc import Sequence

from events.messages import RetentionVerdict
from services.core.store.retention import RetentionRule, RetentionRules, StoredTag, verdicts

DAY = 86400.0
NOW = 1000 * DAY
SIZES = {"base": 100, **{f"own{number}": 10 for number in range(9)}}


def tag(number: int, *, days: float = 0.0, used: float | None = None, needed_by: Sequence[str] = ()) -> StoredTag:
    """`web:<number>`, pushed so many days ago, on a shared base."""
    return StoredTag(
        reference=f"docker.io/library/web:{number}",
        repository="library/web",
        manifest=f"m{number}",
        pushed_at=NOW - days * DAY,
        used_at=NOW - (days if used is None else used) * DAY,
        blobs=frozenset({"base", f"own{number}"}),
        needed_by=needed_by,
    )


def deleted(rule: RetentionRule, *tags: StoredTag) -> list[str]:
    return [name(one) for one in verdicts(RetentionRules(rules=(rule,)), tags, SIZES, NOW) if not one.keep]


def name(verdict: RetentionVerdict) -> str:
    return verdict.reference.rpartition(":")[2]


def test_without_rules_everything_is_kept() -> None:
    """And what no pattern fits."""
    told = verdicts(RetentionRules(), [tag(1, days=900)], SIZES, NOW)
    assert [(one.keep, one.reason) for one in told] == [(True, "no rule is about it")]
    assert deleted(RetentionRule(pattern="*/team/*", keep_last=1), tag(1, days=900), tag(2, days=901)) == []


def test_the_newest_of_a_repository_are_kept() -> None:
    """By the time of their push."""
    assert deleted(RetentionRule(pattern="*", keep_last=2), tag(1, days=3), tag(2, days=1), tag(3, days=2)) == ["1"]


def test_what_was_used_lately_is_kept() -> None:
    """A push, a deployment or a pull; the reason tells the days."""
    rule = RetentionRule(pattern="*", keep_days=30)
    assert deleted(rule, tag(1, days=40), tag(2, days=40, used=2), tag(3, days=29)) == ["1"]
    (first, *_) = verdicts(RetentionRules(rules=(rule,)), [tag(1, days=40)], SIZES, NOW)
    assert first.reason == "last used 40.0 days ago, more than 30"


def test_one_reason_to_keep_is_enough() -> None:
    """Number and age together delete only what both would."""
    rule = RetentionRule(pattern="*", keep_last=1, keep_days=30)
    assert deleted(rule, tag(1, days=50), tag(2, days=10), tag(3, days=20)) == ["1"]


def test_what_somebody_needs_is_never_deleted() -> None:
    """Neither for its age nor for the cap; the reason names who needs it."""
    needed = tag(1, days=900, needed_by=("range range-1", "plan p-1"))
    assert deleted(RetentionRule(pattern="*", keep_days=1, cap_bytes=0), needed) == []
    (told,) = verdicts(RetentionRules(rules=(RetentionRule(pattern="*", keep_days=1),)), [needed], SIZES, NOW)
    assert told.reason == "needed by range range-1, plan p-1"


def test_above_the_cap_the_least_recently_used_go_first() -> None:
    """A shared layer counts once, so each tag frees what is its own; it stops as soon as the rest fits."""
    rule = RetentionRule(pattern="*", cap_bytes=120)
    assert deleted(rule, tag(1, days=3), tag(2, days=9), tag(3, days=5), tag(4, days=1)) == ["2", "3"]


def test_the_first_rule_that_fits_decides() -> None:
    """A rule that keeps all, before one that deletes, is an exception from it."""
    rules = RetentionRules(rules=(RetentionRule(pattern="*:1"), RetentionRule(pattern="*", keep_days=1)))
    told = verdicts(rules, [tag(1, days=9), tag(2, days=9)], SIZES, NOW)
    assert {name(one): one.keep for one in told} == {"1": True, "2": False}


def test_freed_bytes_are_those_of_all_deletions_together() -> None:
    """The last tag of a shared layer frees it as well."""
    told = verdicts(
        RetentionRules(rules=(RetentionRule(pattern="*", keep_days=1),)), [tag(1, days=9), tag(2, days=8)], SIZES, NOW
    )
    assert [one.freed_bytes for one in told] == [10, 110]


def test_a_rule_is_replaced_by_its_pattern() -> None:
    """In its place, since the order counts."""
    rules = RetentionRules().with_rule(RetentionRule(pattern="a", keep_last=1)).with_rule(RetentionRule(pattern="b"))
    changed = rules.with_rule(RetentionRule(pattern="a", keep_last=2))
    assert [(one.pattern, one.keep_last) for one in changed.rules] == [("a", 2), ("b", None)]
    assert [one.pattern for one in changed.without("a").rules] == ["b"]
