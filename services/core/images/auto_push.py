"""Auto-push as a setting that is changed while the services run: for all images, and for names that a pattern fits."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

import msgspec
from msgspec import Meta

from events.records import Key

RULES_LIMIT = 200


class AutoPushRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether images go into the registry by themselves whose full name fits `pattern` (`*/team/*`, `*:dev-*`)."""

    pattern: Annotated[str, Meta(min_length=1, max_length=512)]
    push: bool


class AutoPush(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The record `{prefix}:settings:auto-push`. The first rule that fits wins, then `push`; None: CYROID_AUTO_PUSH."""

    push: bool | None = None
    rules: Annotated[tuple[AutoPushRule, ...], Meta(max_length=RULES_LIMIT)] = ()

    def decides(self, reference: str, otherwise: bool) -> bool:
        """Whether the image of that full name is pushed; `otherwise` is the process's own setting."""
        for rule in self.rules:
            if fnmatchcase(reference, rule.pattern):
                return rule.push
        return otherwise if self.push is None else self.push

    def with_rule(self, pattern: str, push: bool | None) -> AutoPush:
        """With a rule changed in its place, added at the end, or (None) taken out."""
        if push is None:
            return msgspec.structs.replace(self, rules=tuple(one for one in self.rules if one.pattern != pattern))
        rule = AutoPushRule(pattern=pattern, push=push)
        if any(one.pattern == pattern for one in self.rules):
            return msgspec.structs.replace(
                self, rules=tuple(rule if one.pattern == pattern else one for one in self.rules)
            )
        return msgspec.structs.replace(self, rules=(*self.rules, rule))


def auto_push_key(prefix: str) -> Key[AutoPush]:
    """Where an operator's choice is stored."""
    return Key(f"{prefix}:settings:auto-push", AutoPush)
