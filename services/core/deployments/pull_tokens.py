"""Pull token: a signed permission to read one repository by digest, until it expires.

It is a JSON Web Token (RFC 7519) signed with HMAC-SHA256, which the proxy in front of the registry's pull side checks
(`deploy.container.range_proxy`). An engine gets it with the command to pull (`PullRequested.registry_token`) and sends
it as a bearer token; nothing is stored on either side.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

#: A pull of any size may take so long to begin and to get over its pauses,
LEAST_SECONDS = 600.0
#: and this much of it is expected in a second at least.
BYTES_PER_SECOND = 8 * 1024 * 1024
_HEADER = {"alg": "HS256", "typ": "JWT"}


@dataclass(frozen=True, slots=True)
class PullTokens:
    """Signs tokens with `key`."""

    key: str = field(repr=False)

    def token(self, source: str, *, total_bytes: int, now: datetime) -> str:
        """A token for the repository of `source` (`host:port/repository@sha256:…`), for a pull of that size."""
        expires = now + timedelta(seconds=LEAST_SECONDS + total_bytes / BYTES_PER_SECOND)
        claims = {"repository": repository_of(source), "iat": int(now.timestamp()), "exp": int(expires.timestamp())}
        signed = b".".join(_base64(msgspec.json.encode(part)) for part in (_HEADER, claims))
        signature = hmac.new(self.key.encode(), signed, hashlib.sha256).digest()
        return (signed + b"." + _base64(signature)).decode()


def repository_of(source: str) -> str:
    """The repository in `host:port/team/web@sha256:…`: `team/web`."""
    return source.partition("@")[0].partition("/")[2]


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
