"""Listing: one page of a table, with cursor, order, filter, search and counts; the same for every list."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from events.malformed import MALFORMED
from services.errors import BadInput
from services.queries.read_model.table import Place, SortValue, Table

R = TypeVar("R")
Order = Literal["asc", "desc"]
#: Of so many different filters of a list the matching rows are kept.
_KEPT_FILTERS = 64


@dataclass(frozen=True, slots=True)
class Filter(Generic[R]):
    """A list's own filter. Two with one `key` match the same rows."""

    key: tuple[str, ...]
    matches: Callable[[R], bool]


class ListQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters that every list has. `q` is searched for, in upper or lower case."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="a number from 1 to 1000")] = 50
    cursor: Annotated[str, Meta(max_length=4096, description="the `next` of an earlier answer")] = ""
    order: Annotated[Order | None, Meta(description="asc or desc")] = None
    q: Annotated[str, Meta(max_length=256, description="text of at most 256 characters")] = ""


class ListPage(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """A page of a list.

    next     the cursor of the following page; None on the last one
    total    rows on all pages
    counts   rows by their state or kind, with all filters but that one
    as_of    when the read model was last known to be complete
    stale    whether that was too long ago
    """

    items: list[R]
    next: str | None = None
    total: int = 0
    counts: dict[str, int] = {}
    as_of: datetime | None = None
    stale: bool = False


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a page ended: the order, and the last row's place in it. It stays right while rows come and go."""

    sort: str
    order: Order
    value: SortValue
    ident: str

    def encode(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Raises BadInput."""
        try:
            content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return msgspec.json.decode(content, type=cls)
        except (*MALFORMED, ValueError, binascii.Error) as problem:
            raise BadInput("cursor must be the `next` of an earlier answer of this list") from problem


class Listing(Generic[R]):
    """What one list is made of.

    text      what `q` is searched in
    state     what `counts` counts by; None: nothing
    sorts     order by default of each sort, the first is the list's own

    Which rows match a filter, in which order, is kept until a row changes: a list that is asked for again and again is
    gone through once.
    """

    def __init__(
        self,
        *,
        table: Table[R],
        text: Callable[[R], str],
        sorts: dict[str, Order],
        state: Callable[[R], str] | None = None,
    ) -> None:
        self.table, self.text, self.sorts, self.state = table, text, sorts, state
        self._version = -1
        self._matching: OrderedDict[tuple[str, ...], tuple[list[Place], dict[str, int]]] = OrderedDict()
        self._pages: OrderedDict[tuple[object, ...], ListPage[R]] = OrderedDict()

    def page(
        self,
        query: ListQuery,
        *,
        sort: str = "",
        state: str = "",
        keep: Filter[R] | None = None,
        as_of: datetime | None = None,
        stale: bool = False,
    ) -> ListPage[R]:
        """One page. `keep` is the list's own filter, `state` one of those that are counted. Raises BadInput.

        The same page is the same object until a row changes, so that whoever encodes it can keep that.
        """
        self._forget_changed()
        key = (query, sort, state, keep.key if keep is not None else None, as_of, stale)
        page = self._pages.get(key)
        if page is None:
            page = self._pages[key] = self._page(query, sort, state, keep, as_of=as_of, stale=stale)
            if len(self._pages) > _KEPT_FILTERS:
                self._pages.popitem(last=False)
        return page

    def _page(
        self,
        query: ListQuery,
        sort: str,
        state: str,
        keep: Filter[R] | None,
        *,
        as_of: datetime | None,
        stale: bool,
    ) -> ListPage[R]:
        sort = sort or next(iter(self.sorts))
        order = query.order or self.sorts[sort]
        places, counts = self._found(query.q.casefold(), keep, sort, state)
        chosen = _slice(places, self._after(query, sort, order), order, query.limit + 1)
        last = chosen[query.limit - 1] if len(chosen) > query.limit else None
        return ListPage(
            items=[self.table.rows[ident] for _, ident in chosen[: query.limit]],
            next=Cursor(sort, order, *last).encode() if last else None,
            total=len(places),
            counts={} if self.state is None else counts,
            as_of=as_of,
            stale=stale,
        )

    def counts(self) -> dict[str, int]:
        """Rows by state."""
        return self._found("", None, next(iter(self.sorts)), "")[1]

    def _found(self, text: str, keep: Filter[R] | None, sort: str, state: str) -> tuple[list[Place], dict[str, int]]:
        """The places of all rows that match, ascending, and how many there are of each state, whatever `state`."""
        self._forget_changed()
        key = (text, sort, state, *(keep.key if keep is not None else ()))
        found = self._matching.get(key)
        if found is None:
            found = self._matching[key] = self._search(text, keep, sort, state)
            if len(self._matching) > _KEPT_FILTERS:
                self._matching.popitem(last=False)
        else:
            self._matching.move_to_end(key)
        return found

    def _forget_changed(self) -> None:
        if self._version != self.table.version:
            self._matching.clear()
            self._pages.clear()
            self._version = self.table.version

    def _search(self, text: str, keep: Filter[R] | None, sort: str, state: str) -> tuple[list[Place], dict[str, int]]:
        counts: Counter[str] = Counter()
        places: list[Place] = []
        for place, row in self.table.walk(sort):
            if (keep is not None and not keep.matches(row)) or (text and text not in self.text(row).casefold()):
                continue
            of = "" if self.state is None else self.state(row)
            counts[of] += 1
            if not state or of == state:
                places.append(place)
        return places, dict(sorted(counts.items()))

    def _after(self, query: ListQuery, sort: str, order: Order) -> Place | None:
        if not query.cursor:
            return None
        cursor = _decoded(query.cursor)
        sample = next(iter(self.table.walk(sort)), None)
        if (cursor.sort, cursor.order) != (sort, order):
            raise BadInput(f"the cursor belongs to sort={cursor.sort} and order={cursor.order}: give both with it")
        if sample is not None and isinstance(sample[0][0], str) is not isinstance(cursor.value, str):
            raise BadInput("cursor must be the `next` of an earlier answer of this list")
        return cursor.value, cursor.ident


def _slice(places: list[Place], after: Place | None, order: Order, limit: int) -> list[Place]:
    """The places behind `after`, at most `limit`."""
    if order == "desc":
        end = len(places) if after is None else bisect_left(places, after)
        return places[max(end - limit, 0) : end][::-1]
    start = 0 if after is None else bisect_right(places, after)
    return places[start : start + limit]


@lru_cache(maxsize=_KEPT_FILTERS)
def _decoded(text: str) -> Cursor:
    return Cursor.decode(text)
