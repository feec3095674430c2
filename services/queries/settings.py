"""Every setting: its variable, its value in this process (secrets masked), and what it means."""

from __future__ import annotations

import msgspec

from services.core.secrets import shown
from services.runtime.environment import documentation, expected, variable_of
from services.settings import Settings


class SettingView(msgspec.Struct, frozen=True, kw_only=True):
    """`expects` says what a value has to look like."""

    variable: str
    value: str | int | float | bool
    default: str | int | float | bool
    expects: str
    meaning: str

    @property
    def changed(self) -> bool:
        return self.value != self.default


def setting_views(now: Settings) -> list[SettingView]:
    """Every setting, in the order of definition."""
    documented = documentation()
    return [
        SettingView(
            variable=variable_of(field.name),
            value=shown(field, getattr(now, field.name)),
            default=field.default,
            expects=expected(field),
            meaning=documented[field.name],
        )
        for field in msgspec.structs.fields(now)
    ]
