"""Who has a deployment's id: whoever asked first, from the moment of asking, before any deployer has seen it.

    {prefix}:claim:<deployment_id>      Claim

The asker's commit writes it together with the request, the deployer's together with the deployment's record; both only
where there is none yet. So of two requests under one id, however close together, exactly one comes first, and whoever
says the other is told before anything is published.
"""

from __future__ import annotations

import msgspec

from events.bus import RecordWrite
from events.messages import DeploymentRequested
from services.core.references_in_full import references_digest

#: Longer than any deployer is away; after its beginning a deployment's own record says what the id is for.
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

    @classmethod
    def parse(cls, value: bytes) -> Claim:
        return msgspec.json.decode(value, type=cls)

    def write(self, key: str) -> RecordWrite:
        """Fails as a conflict where somebody was faster."""
        return RecordWrite(key, msgspec.json.encode(self), expected=0, expires_seconds=CLAIM_SECONDS)
