"""Opens the authenticator that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import aiohttp

from services.api.authentication import Authenticator, NoAuthentication, Role, TokenFile
from services.api.cyroid_login import CyroidLogin
from services.errors import BadInput
from services.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSettings:
    """`auth` and its settings: the token file's path, or CYROID's URL and `THEIRS=OURS,…` for the roles."""

    auth: Literal["none", "token", "cyroid"] = "none"
    tokens: str = ""
    cyroid_url: str = ""
    cyroid_roles: str = ""

    @classmethod
    def of(cls, settings: Settings) -> LoginSettings:
        return cls(
            auth=settings.api_auth,
            tokens=settings.api_tokens,
            cyroid_url=settings.api_cyroid_url,
            cyroid_roles=settings.api_cyroid_roles,
        )


@asynccontextmanager
async def open_authenticator(settings: LoginSettings) -> AsyncIterator[Authenticator]:
    """The authenticator. Raises BadInput for a token file that is missing or wrong."""
    if settings.auth == "none":
        yield NoAuthentication()
    elif settings.auth == "token":
        if not settings.tokens:
            raise BadInput("CYROID_API_AUTH=token needs a file of tokens: set CYROID_API_TOKENS", code="bad_setting")
        yield TokenFile(Path(settings.tokens))
    else:
        roles = dict(pair.split("=", 1) for pair in settings.cyroid_roles.split(",") if pair)
        async with aiohttp.ClientSession() as session:
            yield CyroidLogin(session=session, url=settings.cyroid_url, roles=cast(dict[str, Role], roles))
