"""Comparing what is there with what should be there."""

import pytest

from events.messages import PresentImage
from services.core.ranges.drift import drift_of
from services.core.ranges.ranges import DesiredImage

ONE, TWO, LAYER, OTHER = (f"sha256:{digit * 64}" for digit in "12ab")
WEB = "docker.io/library/web:1"


def _wanted(image_id: str = ONE, diff_ids: tuple[str, ...] = (LAYER,)) -> DesiredImage:
    return DesiredImage(reference=WEB, image_id=image_id, diff_ids=diff_ids, deployment_id="d1")


def _found(image_id: str | None, diff_ids: tuple[str, ...] = ()) -> PresentImage:
    return PresentImage(references=(WEB,), image_id=image_id, diff_ids=diff_ids)


@pytest.mark.parametrize(
    ("wanted", "found", "verdict"),
    [
        (_wanted(), _found(ONE), "ok"),
        (_wanted(), _found(TWO, (LAYER,)), "other content"),
        (_wanted(), _found(None, (LAYER,)), "ok"),
        (_wanted(), _found(None, (LAYER, OTHER)), "other content"),
        (_wanted(), _found(None), "unknown"),
        (_wanted(image_id=""), _found(ONE, (LAYER,)), "ok"),
        (_wanted(image_id="", diff_ids=()), _found(ONE, (LAYER,)), "unknown"),
        (_wanted(), None, "missing"),
        (None, _found(ONE), "unknown"),
        (None, None, "unknown"),
    ],
)
def test_the_config_digest_decides_then_the_layers(
    wanted: DesiredImage | None, found: PresentImage | None, verdict: str
) -> None:
    """Where neither can be compared, the verdict is that nobody knows; all but a plain comparison says why."""
    said = drift_of(WEB, wanted, found)
    assert said.verdict == verdict
    by_config = bool(wanted and found and wanted.image_id and found.image_id)
    assert bool(said.why) == (not by_config and verdict != "missing")


def test_content_that_cannot_be_read_is_not_right() -> None:
    """The layer and the reason are told; of other content, only that it is another one."""
    broken = {LAYER: "it is not mounted"}
    said = drift_of(WEB, _wanted(), _found(ONE, (LAYER,)), broken)
    assert (said.verdict, said.why) == ("unreadable", f"layer {LAYER} cannot be read: it is not mounted")
    assert drift_of(WEB, _wanted(), _found(ONE, (LAYER,)), {OTHER: "it is not mounted"}).verdict == "ok"
    assert drift_of(WEB, _wanted(), _found(TWO, (LAYER,)), broken).verdict == "other content"
