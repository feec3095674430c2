"""Idempotency claim of a deployment's id: the id belongs to the first request, before any deployer has read it.

    {prefix}:claim:<deployment_id>      Claim

The asker's commit writes it together with the request, the deployer's together with the deployment's record; both only
where there is none yet. So of two requests under one id, however close together, exactly one comes first, and whoever
says the other is told before anything is published.
"""

from __future__ import annotations

import msgspec

from events.bus import RecordWrite
from events.messages import DeploymentRequested
from events.records import ABSENT, Key
from services.core.images.reference_lists import references_digest

#: Longer than any deployer is unavailable; after its beginning a deployment's own record says what the id is for.
CLAIM_SECONDS = 30 * 86400.0


class Claim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a request asks for, as far as it makes a difference: two that are equal ask for the same.

    How urgent it is makes none. `images_digest` is of the full names in their order.
    """

    range_id: str
    images_digest: str
    platform: str | None = None
    engine_url: str | None = None

    @classmethod
    def of(cls, request: DeploymentRequested) -> Claim:
        return cls(
            range_id=request.range_id,
            images_digest=references_digest(request.images),
            platform=request.platform,
            engine_url=request.engine_url,
        )

    def write(self, key: Key[Claim]) -> RecordWrite:
        """The write of the claim; a conflict where another request was faster."""
        return key.write(self, expected=ABSENT, expires_seconds=CLAIM_SECONDS)
