"""No entry stops a consumer: whatever the bytes, `decode` gives an envelope or says why not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from events.codec import Undecodable, decode, message_types
from events.dead import read_letter, write_letter
from events.envelope import Envelope
from events.lease import Holder, Lease, Letter

NAMES = st.sampled_from(
    [b"id", b"type", b"source", b"subject", b"time", b"correlationid", b"causationid", b"traceparent", b"data"]
)
TYPES = st.sampled_from([name.encode() for name in message_types()])
VALUES = st.one_of(
    st.binary(max_size=60),
    TYPES,
    st.just(b"2026-01-01T00:00:00Z"),
    st.just(b'{"reference":"a","image_id":"sha256:' + b"1" * 64 + b'"}'),
    st.text(max_size=40).map(lambda text: text.encode(errors="surrogatepass")),
)
ENTRIES = st.dictionaries(st.one_of(NAMES, st.binary(max_size=20)), VALUES, max_size=14)


def read(fields: dict[bytes, bytes]) -> Envelope | str:
    try:
        return decode(fields)
    except Undecodable as error:
        return f"{error.code}: {error}"


@given(ENTRIES)
def test_any_entry_is_decoded_or_explained(fields: dict[bytes, bytes]) -> None:
    """Never another exception, never without a reason."""
    found = read(fields)
    assert isinstance(found, Envelope) or found.partition(": ")[2]


@given(ENTRIES, st.integers(0, 600))
def test_any_entry_survives_as_a_dead_letter(fields: dict[bytes, bytes], more: int) -> None:
    """Every byte of it comes back, however many fields it has."""
    whole = {**fields, **{b"field %d" % number: b"" for number in range(more)}}
    lease = Lease("s", "1-1", Holder("g", "w"), 1, whole)
    letter = read_letter("2-1", write_letter(lease, Letter("dead", "code", "reason \udcff", "t")))
    assert letter is not None
    assert letter.fields == whole
    assert letter.identity == lease.identity
