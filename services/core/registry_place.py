"""Address and credentials of a registry, out of its URL and the settings beside it.

`http://user:password@host:5000` is one way to give a name and a password, CYROID_REGISTRY_USERNAME and _PASSWORD are
another, CYROID_REGISTRY_TOKEN is a third: exactly one of them counts. An engine pulls from `HOST:PORT/v2/` and nowhere
else (distribution-spec, "Endpoints"), so a registry under a path would be one that no range can use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from services.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryPlace:
    """`url` and `authority` (`host:port`) hold no secret. Either a name with a password, or a `token`, or nothing."""

    url: str
    authority: str
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, url: str, *, username: str = "", password: str = "", token: str = "") -> RegistryPlace:
        """Raises BadInput for a URL that is none, has a path, or comes with a second name or token."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as problem:  # its text may hold a piece of a password
            raise BadInput("this is no URL of a registry: it is written http://[USER:PASSWORD@]HOST:PORT") from problem
        if parts.scheme not in {"http", "https"} or not host:
            raise BadInput("this is no URL of a registry: it is written http://[USER:PASSWORD@]HOST:PORT")
        authority = parts.netloc.rpartition("@")[2]
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise BadInput(
                f"it has a path after {authority}: engines pull from HOST:PORT/v2/ only, so give the registry"
                " a host name or a port of its own, without a path",
                code="registry_path",
            )
        own, both = parts.username or "", "it holds a user name"
        if own and token:
            raise BadInput(f"{both} and registry_token is set as well: keep one of them", code="two_credentials")
        if own and (username or (parts.password and password)):
            raise BadInput(
                f"{both}, and registry_username or registry_password is set as well: keep one of them",
                code="two_credentials",
            )
        return cls(
            url=f"{parts.scheme}://{authority}",
            authority=authority,
            username=unquote(own) or username,
            password=unquote(parts.password or "") or password,
            token=token,
        )
