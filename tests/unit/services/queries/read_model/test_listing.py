"""`services.queries.read_model.listing`: pages that stay right, filters, search and counts."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import BadInput
from services.queries.read_model.listing import Cursor, Filter, Listing, ListQuery, Order
from services.queries.read_model.table import Table


class Row(msgspec.Struct, frozen=True):
    """A row of the tests."""

    name: str
    size: int
    state: str = "on"


def _listing(*rows: Row) -> Listing[Row]:
    table = Table[Row]({"name": lambda row: row.name, "size": lambda row: row.size})
    for row in rows:
        table.put(row.name, row)
    return Listing(
        table=table, text=lambda row: row.name, sorts={"name": "asc", "size": "desc"}, state=lambda row: row.state
    )


def _pages(listing: Listing[Row], limit: int, sort: str, order: Order) -> Iterator[list[Row]]:
    cursor: str | None = ""
    while cursor is not None:
        page = listing.page(ListQuery(limit=limit, cursor=cursor, order=order), sort=sort)
        yield page.items
        cursor = page.next


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 4), max_size=30), st.integers(1, 7), st.booleans())
def test_pages_together_are_the_sorted_list(sizes: dict[str, int], limit: int, descending: bool) -> None:
    """Each row once, also where many have the same value."""
    listing = _listing(*(Row(name, size) for name, size in sizes.items()))
    order: Order = "desc" if descending else "asc"
    found = [row for page in _pages(listing, limit, "size", order) for row in page]
    assert found == sorted(
        (Row(name, size) for name, size in sizes.items()), key=lambda row: (row.size, row.name), reverse=descending
    )


def test_a_page_stays_right_while_rows_come_and_go() -> None:
    """Also when the row that the cursor names is gone: what stayed is told once, what came before it is not."""
    listing = _listing(*(Row(name, 1) for name in "bdfh"))
    first = listing.page(ListQuery(limit=2))
    assert [row.name for row in first.items] == ["b", "d"]
    listing.table.remove("d")
    listing.table.put("a", Row("a", 1))
    listing.table.put("e", Row("e", 1))
    rest = listing.page(ListQuery(limit=9, cursor=first.next or ""))
    assert [row.name for row in rest.items] == ["e", "f", "h"]
    assert rest.next is None


def test_filters_and_search_are_of_the_whole_set() -> None:
    """`total` counts all pages; `counts` counts by state with every filter but that one."""
    listing = _listing(
        *(Row(f"Web-{number}", number, "on" if number % 2 else "off") for number in range(9)), Row("x", 1)
    )
    page = listing.page(ListQuery(limit=2, q="wEB"), state="on", keep=Filter(("8",), lambda row: row.size < 8))
    assert [row.name for row in page.items] == ["Web-1", "Web-3"]
    assert (page.total, page.counts) == (4, {"off": 4, "on": 4})
    assert listing.counts() == {"off": 5, "on": 5}


def test_a_cursor_belongs_to_its_order() -> None:
    """Used for another one it is refused, and so is what never was a cursor."""
    listing = _listing(Row("a", 1), Row("b", 2), Row("c", 3))
    cursor = listing.page(ListQuery(limit=1)).next or ""
    with pytest.raises(BadInput, match="sort=name and order=asc"):
        listing.page(ListQuery(cursor=cursor), sort="size")
    with pytest.raises(BadInput, match="order=asc"):
        listing.page(ListQuery(cursor=cursor, order="desc"))
    for text in ("x", "é", "W10", Cursor("name", "asc", 7, "a").encode()):
        with pytest.raises(BadInput, match="must be the `next`"):
            listing.page(ListQuery(cursor=text))
