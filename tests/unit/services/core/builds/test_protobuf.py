"""Protocol Buffers messages, read and written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.builds import protobuf

FIELDS = st.lists(
    st.tuples(
        st.integers(min_value=1, max_value=2**29 - 1),
        st.one_of(st.integers(min_value=0, max_value=2**64 - 1), st.binary(max_size=300)),
    )
)


@given(FIELDS)
def test_what_is_written_is_read_back(written: list[protobuf.Field]) -> None:
    """Numbers and values, in their order."""
    assert list(protobuf.fields(protobuf.message(*written))) == written


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_value_error(content: bytes) -> None:
    """Nothing else is raised, whatever an engine sends."""
    try:
        list(protobuf.fields(content))
    except ValueError:
        return


def test_fixed_width_fields_are_passed_over() -> None:
    """Between two that are read."""
    content = b"\x08\x01" + b"\x11" + bytes(8) + b"\x1d" + bytes(4) + b"\x22\x02hi"
    assert list(protobuf.fields(content)) == [(1, 1), (4, b"hi")]


@pytest.mark.parametrize("content", [b"\x0a\x05abc", b"\x08\x80", b"\x80" * 11, b"\x0b", b"\x11\x00"])
def test_a_message_cut_off_or_of_another_kind_is_refused(content: bytes) -> None:
    """A length beyond the end, a number without an end, a group."""
    with pytest.raises(ValueError, match=r"field|varint"):
        list(protobuf.fields(content))


def test_text_is_shown_even_if_it_is_no_text() -> None:
    """A number has none; broken UTF-8 is replaced."""
    assert protobuf.text(b"a\xffb") == "a\N{REPLACEMENT CHARACTER}b"
    assert protobuf.text(7) == ""
