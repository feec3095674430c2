"""Which host holds what, and which one is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.core.hosts.held_images import NEVER, HeldImage, HeldImages, route

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")


def held(image_id: str | None, minutes: int = 0, diff_id: str = "") -> HeldImage:
    local_id = image_id or f"local-{diff_id}"
    since = NOW + timedelta(minutes=minutes)
    return HeldImage(local_id=local_id, image_id=image_id, diff_ids=(diff_id or local_id,), since=since)


def images(**hosts: HeldImage) -> HeldImages:
    return HeldImages(reference="web:1", hosts=hosts)


def test_a_name_means_what_was_announced_last_and_every_host_that_has_it() -> None:
    """Content that is wanted is where it is, whatever the name means."""
    known = images(a=held(ONE), b=held(TWO, 1), c=held(TWO, -5))
    assert known.holders() == ["b", "c"]
    assert known.holders(ONE) == ["a"]
    assert images().holders() == []


def test_diff_ids_decide_where_an_engine_does_not_tell_the_content() -> None:
    """As on every containerd store."""
    known = images(a=held(None, diff_id="x"), b=held(None, -1, diff_id="x"), c=held(None, -2, diff_id="y"))
    assert known.holders() == ["a", "b"]
    assert known.holders(ONE, ("y",)) == ["c"]
    assert known.holders(ONE) == []


def test_what_was_only_found_outranks_no_announcement() -> None:
    """It keeps the time of what the host announced under that name, and what is known of the same image."""
    announced = images().announced("a", held(ONE))
    found = announced.found("b", held(TWO, 60)).found("a", held(ONE, 70))
    assert found.hosts["b"].since == NEVER
    assert found.hosts["a"].since == NOW
    assert found.holders() == ["a"]
    told = images().announced("a", HeldImage(local_id="m", image_id=ONE, diff_ids=("x",), since=NOW))
    again = told.found("a", HeldImage(local_id="m", image_id=None, diff_ids=("x",), since=NEVER))
    assert again.hosts["a"].image_id == ONE
    assert again.dropped("a").hosts == {}


@pytest.mark.parametrize(
    ("known", "image_id", "asked", "chosen"),
    [
        (None, None, (), "me"),
        (None, None, ("me",), "a"),
        (None, None, ("me", "a", "b"), None),
        (images(a=held(ONE), me=held(TWO, -1)), None, (), "a"),
        (images(a=held(ONE), me=held(ONE, -1)), None, (), "me"),
        (images(a=held(ONE), me=held(TWO, -1)), TWO, (), "me"),
        (images(a=held(ONE)), TWO, (), "me"),
        (images(gone=held(ONE)), ONE, (), "me"),
        (images(a=held(ONE), b=held(ONE, -1)), ONE, ("me", "a"), "b"),
    ],
)
def test_a_push_without_a_host_goes_where_the_content_is(
    known: HeldImages | None, image_id: str | None, asked: tuple[str, ...], chosen: str | None
) -> None:
    """To this host where it has it; to hosts that are there; else from one to the next."""
    assert route(known, mine="me", alive=["a", "b"], image_id=image_id, asked=asked) == chosen
