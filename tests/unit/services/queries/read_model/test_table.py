"""`services.queries.read_model.table`, compared with sorting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.queries.read_model.table import Table

ROWS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.none() | st.tuples(st.integers(0, 3), st.text(max_size=2))))


@given(ROWS, st.booleans())
def test_every_order_is_that_of_sorting(changes: list[tuple[str, tuple[int, str] | None]], descending: bool) -> None:
    """After any rows came, changed and went; equal values are in the order of ids."""
    table = Table[tuple[int, str]]({"number": lambda row: row[0], "text": lambda row: row[1]})
    expected: dict[str, tuple[int, str]] = {}
    for ident, row in changes:
        if row is None:
            assert table.remove(ident) is (expected.pop(ident, None) is not None)
        else:
            assert table.put(ident, row) is (expected.get(ident) != row)
            expected[ident] = row
    assert len(table) == len(expected)
    for position, order in enumerate(("number", "text")):
        wanted = sorted(expected, key=lambda ident: (expected[ident][position], ident), reverse=descending)
        assert [ident for (_, ident), _ in table.walk(order, descending=descending)] == wanted


def test_what_is_equal_is_no_change() -> None:
    """`version` stands for the rows."""
    table = Table[tuple[int, str]]({})
    table.put("a", (1, "x"))
    version = table.version
    assert not table.put("a", (1, "x"))
    assert not table.remove("b")
    assert table.version == version
    assert table.orders == ()
