"""No byte that somebody else wrote ends in anything but a value or an error that the decoder is known for."""

from __future__ import annotations

import io
import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.runtime import telemetry
from tests.fuzz.mutations import PIECES, TIMES, mutated, payloads
from tests.fuzz.register import DECODERS, Decoder


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_any_bytes_give_a_value_or_a_known_error(decoder: Decoder) -> None:
    """Arbitrary bytes, and near misses of valid ones, thrown at each entry of the register."""

    @settings(max_examples=25 * TIMES, database=None, suppress_health_check=list(HealthCheck))
    @given(payloads(decoder.seeds))
    def run(payload: bytes) -> None:
        with suppress(*decoder.errors):
            decoder.run(payload)

    run()


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_every_decoder_takes_one_of_its_seeds(decoder: Decoder) -> None:
    """A register whose seeds are all refused would only fuzz the first check."""
    taken = 0
    for seed in decoder.seeds:
        try:
            decoder.run(seed)
        except decoder.errors:
            continue
        taken += 1
    assert taken


VALUES = st.one_of(
    st.text(st.characters(), max_size=30),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.binary(max_size=20),
    st.sampled_from(PIECES).map(lambda piece: piece.decode(errors="surrogateescape")),
    st.dictionaries(st.one_of(st.integers(), st.text(st.characters(), max_size=5)), st.text(max_size=5), max_size=2),
)


@settings(max_examples=200 * TIMES, database=None)
@given(VALUES, VALUES)
def test_any_value_makes_a_line_of_the_log(event: object, value: object) -> None:
    """One line of JSON, also for text that is no Unicode and numbers that are too large."""
    line = telemetry._render_json(None, "info", {"event": event, "value": value})
    assert "\n" not in line
    assert isinstance(json.loads(line), dict)


def test_the_same_number_gives_the_same_bytes() -> None:
    """So that a failure which is told can be repeated."""
    seed = json.dumps({"a": [1, {"b": "c"}]}).encode()
    assert [mutated(seed, number) for number in range(50)] == [mutated(seed, number) for number in range(50)]
    assert len({mutated(seed, number) for number in range(50)}) > 30
    assert io.BytesIO(mutated(b"", 3)).read() is not None
