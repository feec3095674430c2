"""Offer of an archive: permission to fetch it from the tar server once, with a token, until it expires.

The deployer writes the offer under `offer_key` together with posting `image.load_offered`; the message carries the
token, the record only its hash. The tar server asks `Offer.refusal` and, before the first byte, commits `used` with
the record's revision as condition, so that of two requests with one token one is served.

A used offer is not given back: an agent that was cut off asks for a tar again and gets a new offer.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Literal, Self

import msgspec

from events.messages import Layer
from events.records import Key

Refusal = Literal["wrong_token", "used", "expired"]
Layout = Literal["docker", "oci"]


def offer_key(prefix: str, transfer_id: str) -> Key[Offer]:
    """Where the offer for one transfer is stored, under the streams' key prefix."""
    return Key(f"{prefix}:offer:{transfer_id}", Offer)


def token_hash(token: str) -> str:
    """`sha256:<hex>` of a token; what is stored in its place."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


class Offer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stored half of `image.load_offered`. `held` are the diff IDs in the archive; times are aware.

    `layers` says as which blobs the registry has the layers, as far as that is known: an archive in OCI layout has to
    name a layer that it leaves out as the range's engine once pulled it. Not among them is what that engine has raw.
    """

    transfer_id: str
    reference: str
    image_id: str
    diff_ids: tuple[str, ...]
    held: tuple[str, ...]
    layout: Layout
    token_sha256: str
    expires_at: datetime
    range_id: str | None = None
    used_at: datetime | None = None
    layers: tuple[Layer, ...] = ()

    @classmethod
    def make(
        cls,
        *,
        token: str,
        transfer_id: str,
        reference: str,
        image_id: str,
        diff_ids: tuple[str, ...],
        held: tuple[str, ...],
        layout: Layout,
        now: datetime,
        lifetime_seconds: float,
        range_id: str | None = None,
        layers: tuple[Layer, ...] = (),
    ) -> Self:
        """A new offer that `token` opens (256 random bits, safe in a header). Only the token's hash is kept."""
        return cls(
            transfer_id=transfer_id,
            reference=reference,
            image_id=image_id,
            diff_ids=diff_ids,
            held=held,
            layout=layout,
            token_sha256=token_hash(token),
            expires_at=now + timedelta(seconds=lifetime_seconds),
            range_id=range_id,
            layers=layers,
        )

    @property
    def named(self) -> tuple[str, ...]:
        """Digests of the registry's blobs that the archive names and does not hold; only OCI's layout names blobs."""
        if self.layout == "docker":
            return ()
        return tuple(sorted(layer.digest for layer in self.layers if layer.diff_id not in self.held))

    def refusal(self, token: str, now: datetime) -> Refusal | None:
        """Why `token` opens nothing at `now`; None if it does. A wrong token learns nothing about the offer's state."""
        if not hmac.compare_digest(token_hash(token), self.token_sha256):
            return "wrong_token"
        if self.used_at is not None:
            return "used"
        return "expired" if now >= self.expires_at else None

    def used(self, now: datetime) -> Self:
        """The same offer with its one use spent."""
        return msgspec.structs.replace(self, used_at=now)
