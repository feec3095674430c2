"""Offers of archives."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from events.bus import Record
from events.records import ABSENT, UnreadableRecord
from services.core.deployments.offers import Offer, offer_key, token_hash

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LAYER = "sha256:" + "a" * 64


def made(lifetime_seconds: float = 60) -> tuple[Offer, str]:
    token = "t" * 43
    offer = Offer.make(
        token=token,
        transfer_id="t1",
        reference="docker.io/library/nginx:1.27",
        image_id="sha256:" + "1" * 64,
        diff_ids=(LAYER,),
        held=(LAYER,),
        layout="docker",
        now=NOW,
        lifetime_seconds=lifetime_seconds,
        range_id="7",
    )
    return offer, token


def test_the_right_token_opens_an_offer_until_it_expires() -> None:
    """The token is good up to, but not including, the moment of expiry."""
    offer, token = made(60)
    assert offer.refusal(token, NOW) is None
    assert offer.refusal(token, NOW + timedelta(seconds=59)) is None
    assert offer.refusal(token, NOW + timedelta(seconds=60)) == "expired"


def test_a_used_offer_opens_nothing() -> None:
    """The second request with one token is refused as used."""
    offer, token = made()
    assert offer.used(NOW).refusal(token, NOW) == "used"


def test_a_wrong_token_learns_nothing_of_the_state() -> None:
    """Used and expired offers answer a wrong token as a fresh one does."""
    offer, token = made()
    later = NOW + timedelta(days=1)
    assert offer.refusal(token + "x", NOW) == "wrong_token"
    assert offer.used(NOW).refusal("", later) == "wrong_token"


def test_only_the_hash_of_the_token_is_stored() -> None:
    """The record's bytes hold the hash, not the token, and come back as the same offer."""
    offer, token = made()
    key = offer_key("t", offer.transfer_id)
    stored = key.write(offer, expected=ABSENT).value
    assert stored is not None
    assert token.encode() not in stored
    assert token_hash(token).encode() in stored
    assert key.read(Record(stored, 1)).value == offer


def test_the_record_does_not_hold_the_token() -> None:
    """What is stored opens nothing: it has the token's hash alone."""
    offer, token = made()
    assert token.encode() not in msgspec.json.encode(offer)
    assert offer.token_sha256 == token_hash(token)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"transfer_id": 3}', b"\xff"])
def test_a_record_that_is_no_offer_is_refused(content: bytes) -> None:
    """Anything else under the key is an error that names the key."""
    with pytest.raises(UnreadableRecord, match="the record t:offer:t1 is no Offer"):
        offer_key("t", "t1").read(Record(content, 1))


def test_the_key_lies_under_the_prefix() -> None:
    """The deployer and the tar server compute the same key."""
    assert offer_key("{cyroid}", "t1").name == "{cyroid}:offer:t1"
