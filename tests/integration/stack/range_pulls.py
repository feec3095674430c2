"""A range that asks its proxy: with a token, without one, and for what is not its own."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.core.deployments.pull_tokens import PullTokens

KEY = "0123456789abcdef" * 3
#: What a token for `team/web` does not open: no catalog, no tags, no other repository, no other way of writing it.
NOT_ITS_OWN = (
    "/v2/_catalog",
    "/v2/team/web/tags/list",
    "/v2/team/web/manifests/1",
    "/v2/team/other/manifests/sha256:" + "0" * 64,
    "/v2/team/web/../other/manifests/sha256:" + "0" * 64,
    "/v2/team/web/blobs/uploads/",
    "/v2/team/web/blobs/sha256:" + "0" * 63,
    "/v2/team/web/blobs/sha256:" + "0" * 64 + "/x",
    "//v2/team/web/manifests/sha256:" + "0" * 64,
    "/metrics",
    "/debug/vars",
    "/",
)


@dataclass(frozen=True)
class Proxy:
    """Where it listens, and the digests of what the registry has in the repository `team/web`."""

    url: str
    manifest: str
    layer: str

    def get(self, path: str, token: str = "", *, method: str = "GET", data: bytes | None = None) -> int:
        """The status."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code


def token(repository: str = "team/web", *, key: str = KEY, age_seconds: float = 0.0) -> str:
    """A token that was made so long ago."""
    made_at = datetime.now(UTC) - timedelta(seconds=age_seconds)
    return PullTokens(key).token(f"cyroid-registry:5000/{repository}@sha256:{'0' * 64}", total_bytes=0, now=made_at)
