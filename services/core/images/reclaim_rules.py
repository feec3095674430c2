"""Host reclaim as a setting that is changed while the services run: whose copies on the host's engine may be freed.

Nothing is freed without a rule. A rule says from when on the registry's copy is enough; what may never go (an image in
use, the last copy) is decided where the copies are.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated

import msgspec
from msgspec import Meta

from events.records import Key
from services.core.images.references import Reference

RULES_LIMIT = 200


class ReclaimRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """About images whose full name fits `pattern` (`*/team/*`): freed `after_days` from their push, or (None) kept."""

    pattern: Annotated[str, Meta(min_length=1, max_length=512)]
    after_days: Annotated[float, Meta(ge=0, le=3650)] | None = 0.0


class ReclaimRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The record `{prefix}:settings:reclaim`. The first rule that fits decides; without one the host keeps its copy."""

    rules: Annotated[tuple[ReclaimRule, ...], Meta(max_length=RULES_LIMIT)] = ()

    def after_days(self, reference: str) -> float | None:
        """How long after its push the image of that full name stays on the host; None: for ever."""
        return next((rule.after_days for rule in self.rules if fnmatchcase(reference, rule.pattern)), None)

    def with_rule(self, rule: ReclaimRule) -> ReclaimRules:
        """With that rule in the place of the one with its pattern, or at the end."""
        if any(one.pattern == rule.pattern for one in self.rules):
            return ReclaimRules(rules=tuple(rule if one.pattern == rule.pattern else one for one in self.rules))
        return ReclaimRules(rules=(*self.rules, rule))

    def without(self, pattern: str) -> ReclaimRules:
        """Without the rule of that pattern."""
        return ReclaimRules(rules=tuple(one for one in self.rules if one.pattern != pattern))


def reclaim_key(prefix: str) -> Key[ReclaimRules]:
    """Where an operator's rules are stored."""
    return Key(f"{prefix}:settings:reclaim", ReclaimRules)


def fits(reference: Reference, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns fits the full or the familiar name of an image."""
    names = (str(reference), reference.familiar)
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
