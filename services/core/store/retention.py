"""Retention: which tags the rules keep, which they delete, and why. Pure: what is known of the tags comes in.

The first rule whose pattern fits a tag's name decides on it; a tag that no rule fits is kept. A rule keeps the newest
`keep_last` tags of each repository and what was pushed, deployed or pulled within `keep_days`; with neither it keeps
all. Then, while what it kept takes more than `cap_bytes`, the least recently used go, newest and recent ones too. What
somebody needs (an open deployment, a plan, a range that is meant to have it) is never deleted, whatever a rule says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

import msgspec
from msgspec import Meta

from events.messages import RetentionVerdict
from events.records import Key

DAY_SECONDS = 86400.0
RULES_LIMIT = 100


class RetentionRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`pattern` fits full references (`docker.io/library/web:*`, `*`), with `*`, `?` and `[…]` as in a shell."""

    pattern: Annotated[str, Meta(min_length=1, max_length=512)]
    keep_last: Annotated[int, Meta(ge=1)] | None = None
    keep_days: Annotated[float, Meta(gt=0)] | None = None
    cap_bytes: Annotated[int, Meta(ge=0)] | None = None


class RetentionRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The record `{prefix}:settings:retention`. Without rules everything is kept."""

    rules: Annotated[tuple[RetentionRule, ...], Meta(max_length=RULES_LIMIT)] = ()

    def with_rule(self, rule: RetentionRule) -> RetentionRules:
        """With that rule in the place of the one with its pattern, or at the end."""
        if any(one.pattern == rule.pattern for one in self.rules):
            return RetentionRules(rules=tuple(rule if one.pattern == rule.pattern else one for one in self.rules))
        return RetentionRules(rules=(*self.rules, rule))

    def without(self, pattern: str) -> RetentionRules:
        """Without the rule of that pattern."""
        return RetentionRules(rules=tuple(one for one in self.rules if one.pattern != pattern))


def retention_key(prefix: str) -> Key[RetentionRules]:
    """Where an operator's rules are stored."""
    return Key(f"{prefix}:settings:retention", RetentionRules)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTag:
    """A tag as retention sees it. `used_at` is the latest of push, deployment and pull; times are epoch seconds."""

    reference: str
    repository: str
    manifest: str
    pushed_at: float
    used_at: float
    blobs: frozenset[str]
    needed_by: Sequence[str] = ()


def verdicts(
    rules: RetentionRules, tags: Sequence[StoredTag], sizes: Mapping[str, int], now: float
) -> list[RetentionVerdict]:
    """A verdict for every tag, those to be deleted first, the least recently used of them at the top."""
    reasons: dict[str, tuple[bool, str]] = {}
    groups: dict[int, list[StoredTag]] = {}
    for tag in tags:
        number = next((n for n, rule in enumerate(rules.rules) if fnmatchcase(tag.reference, rule.pattern)), None)
        if number is None:
            reasons[tag.reference] = True, "no rule is about it"
        else:
            groups.setdefault(number, []).append(tag)
    references = Counter(digest for tag in tags for digest in tag.blobs)
    for number, group in groups.items():
        reasons |= dict(_by_age(rules.rules[number], group, now))
        cap = rules.rules[number].cap_bytes
        if cap is not None:
            kept = [tag for tag in group if reasons[tag.reference][0]]
            reasons |= dict(_over_cap(kept, sizes, cap))
    order = sorted(tags, key=lambda tag: (reasons[tag.reference][0], tag.used_at, tag.reference))
    return list(_told(order, reasons, references, sizes))


def _by_age(rule: RetentionRule, group: list[StoredTag], now: float) -> Iterator[tuple[str, tuple[bool, str]]]:
    newest: Counter[str] = Counter()
    for tag in sorted(group, key=lambda one: (-one.pushed_at, one.reference)):
        newest[tag.repository] += 1
        place = newest[tag.repository]
        days = max(0.0, now - tag.used_at) / DAY_SECONDS
        if tag.needed_by:
            verdict = True, f"needed by {', '.join(tag.needed_by[:3])}"
        elif rule.keep_last is None and rule.keep_days is None:
            verdict = True, "its rule sets a cap alone" if rule.cap_bytes is not None else "its rule keeps all"
        elif rule.keep_last is not None and place <= rule.keep_last:
            verdict = True, f"number {place} of the newest {rule.keep_last} in its repository"
        elif rule.keep_days is not None and days <= rule.keep_days:
            verdict = True, f"used {days:.1f} days ago, within {rule.keep_days:g}"
        else:
            verdict = False, _why_not(rule, place, days)
        yield tag.reference, verdict


def _why_not(rule: RetentionRule, place: int, days: float) -> str:
    parts = [f"number {place} in its repository, {rule.keep_last} are kept"] if rule.keep_last is not None else []
    parts += [f"last used {days:.1f} days ago, more than {rule.keep_days:g}"] if rule.keep_days is not None else []
    return "; ".join(parts)


def _over_cap(
    kept: list[StoredTag], sizes: Mapping[str, int], cap_bytes: int
) -> Iterator[tuple[str, tuple[bool, str]]]:
    """The least recently used go until the different blobs of what is left fit."""
    references = Counter(digest for tag in kept for digest in tag.blobs)
    total = sum(sizes.get(digest, 0) for digest in references)
    for tag in sorted(kept, key=lambda one: (one.used_at, one.reference)):
        if total <= cap_bytes:
            return
        if tag.needed_by:
            continue
        yield tag.reference, (False, f"its rule's tags take {total} bytes, the cap is {cap_bytes}: least recently used")
        total -= _released(tag, references, sizes)


def _released(tag: StoredTag, references: Counter[str], sizes: Mapping[str, int]) -> int:
    """Take one tag out; the bytes that no other needs then."""
    references.subtract(tag.blobs)
    return sum(sizes.get(digest, 0) for digest in tag.blobs if not references[digest])


def _told(
    order: Iterable[StoredTag],
    reasons: Mapping[str, tuple[bool, str]],
    references: Counter[str],
    sizes: Mapping[str, int],
) -> Iterator[RetentionVerdict]:
    for tag in order:
        keep, reason = reasons[tag.reference]
        yield RetentionVerdict(
            reference=tag.reference,
            manifest_digest=f"sha256:{tag.manifest}",
            keep=keep,
            reason=reason,
            freed_bytes=0 if keep else _released(tag, references, sizes),
        )
