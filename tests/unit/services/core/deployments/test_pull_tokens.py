"""`services.core.deployments.pull_tokens`: what a token says, and for how long. The proxy's test checks signatures."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from services.core.deployments.pull_tokens import BYTES_PER_SECOND, LEAST_SECONDS, PullTokens, repository_of

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SOURCE = "cyroid-registry:5000/team/web@sha256:" + "0" * 64


def claims(token: str) -> dict[str, object]:
    part = token.split(".")[1]
    found: dict[str, object] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def test_a_token_names_one_repository_and_its_end() -> None:
    """Minutes for a small image, longer for one that takes longer."""
    small = claims(PullTokens("k").token(SOURCE, total_bytes=0, now=NOW))
    assert small["repository"] == "team/web"
    assert small["exp"] == NOW.timestamp() + LEAST_SECONDS
    large = claims(PullTokens("k").token(SOURCE, total_bytes=3600 * BYTES_PER_SECOND, now=NOW))
    assert large["exp"] == NOW.timestamp() + LEAST_SECONDS + 3600


def test_the_signature_depends_on_key_and_claims() -> None:
    """And a key is not shown."""
    assert PullTokens("a").token(SOURCE, total_bytes=0, now=NOW) != PullTokens("b").token(
        SOURCE, total_bytes=0, now=NOW
    )
    assert "secret" not in repr(PullTokens("secret"))


@pytest.mark.parametrize(
    ("source", "repository"),
    [("h:1/web@sha256:x", "web"), ("h:1/a/b/c@sha256:x", "a/b/c"), ("h/library/web@sha256:x", "library/web")],
)
def test_the_repository_is_what_stands_between(source: str, repository: str) -> None:
    """Behind the registry's address, before the digest."""
    assert repository_of(source) == repository
