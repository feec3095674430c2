"""What a range is shown, and on whose word."""

from __future__ import annotations

from events.messages import Layer
from services.core.mounts.layer_mounts import layer_mounts
from services.core.mounts.records import GRANTS_LIMIT, ShownLayers

ONE = Layer(digest=f"sha256:{'a' * 64}", diff_id=f"sha256:{'a' * 64}", size_bytes=1024)
NAME = "a" * 64
SHOWN = ShownLayers(range_id="r-1").granted(layer_mounts([ONE]), "t-1", "e-1")


def test_a_folder_is_shown_until_no_grant_is_left() -> None:
    """Each transfer that asked for it gives back its own, in any order; a grant counts once."""
    again = SHOWN.granted(layer_mounts([ONE]), "t-2", "e-1").granted(layer_mounts([ONE]), "t-2", "e-1")
    for first, second in (("t-1", "t-2"), ("t-2", "t-1")):
        left = again.released({NAME: first})
        assert list(left.layers) == [NAME]
        assert left.released({NAME: first}) == left
        assert left.released({NAME: second}).layers == {}


def test_of_very_many_grants_the_last_are_kept() -> None:
    """A hostile range gives nothing back."""
    shown = SHOWN
    for number in range(2 * GRANTS_LIMIT):
        shown = shown.granted(layer_mounts([ONE]), f"u-{number}", "e-1")
    last = [f"u-{number}" for number in range(GRANTS_LIMIT, 2 * GRANTS_LIMIT)]
    assert [*shown.layers[NAME].earlier, shown.layers[NAME].grant] == last


def test_a_request_that_is_taken_back_hides_nothing_that_an_image_stands_on() -> None:
    """The later transfer is cancelled; the layer of the earlier one is in use."""
    again = SHOWN.granted(layer_mounts([ONE]), "t-2", "e-1")
    assert again.released(dict.fromkeys(again.layers, "t-2")) == SHOWN


def test_another_engine_has_no_part_in_what_the_last_one_was_granted() -> None:
    """Where it is not known which engine it was, everything stays."""
    assert SHOWN.of_engine("e-2").layers == {}
    assert SHOWN.of_engine("e-1") == SHOWN.of_engine(None) == SHOWN
    new = SHOWN.granted(layer_mounts([ONE]), "t-2", "e-2")
    assert (new.engine_id, new.layers[NAME].grant, new.layers[NAME].earlier) == ("e-2", "t-2", ())


def test_the_blobs_behind_it_are_known() -> None:
    """Each once."""
    assert ShownLayers(range_id="r").granted(layer_mounts([ONE, ONE]), "t", None).digests == {ONE.digest}
