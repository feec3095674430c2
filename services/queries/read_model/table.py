"""Table of rows in memory, kept sorted in several orders, so that a page of any order is found by bisection."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

R = TypeVar("R")
SortValue = str | float
"""A value that rows are sorted by. One order uses one type alone."""
Place = tuple[SortValue, str]
"""Where a row stands in an order: its value there, and its id, so that equal values have an order too."""


class Table(Generic[R]):
    """Rows by id. `version` grows with every change: what was computed from the rows can be kept until then.

    orders   name of an order → the value of a row in it
    """

    def __init__(self, orders: Mapping[str, Callable[[R], SortValue]]) -> None:
        self.rows: dict[str, R] = {}
        self.version = 0
        self._values = dict(orders)
        self._orders: dict[str, list[Place]] = {name: [] for name in orders}

    def __len__(self) -> int:
        return len(self.rows)

    def put(self, ident: str, row: R) -> bool:
        """Add or replace a row. False: it is there already, as it is."""
        before = self.rows.get(ident)
        if before == row:
            return False
        for name, value in self._values.items():
            place = (value(row), ident)
            if before is not None:
                old = (value(before), ident)
                if old == place:
                    continue
                self._take_out(name, old)
            insort(self._orders[name], place)
        self.rows[ident] = row
        self.version += 1
        return True

    def remove(self, ident: str) -> bool:
        """Take a row out. False: there is none."""
        before = self.rows.pop(ident, None)
        if before is None:
            return False
        for name, value in self._values.items():
            self._take_out(name, (value(before), ident))
        self.version += 1
        return True

    def _take_out(self, name: str, place: Place) -> None:
        order = self._orders[name]
        del order[bisect_left(order, place)]

    def walk(self, order: str, *, descending: bool = False, after: Place | None = None) -> Iterator[tuple[Place, R]]:
        """Rows in one order, those behind `after` alone; `after` itself need not be there any more."""
        places = self._orders[order]
        if descending:
            end = len(places) if after is None else bisect_left(places, after)
            indexes = range(end - 1, -1, -1)
        else:
            indexes = range(0 if after is None else bisect_right(places, after), len(places))
        for index in indexes:
            place = places[index]
            yield place, self.rows[place[1]]

    @property
    def orders(self) -> tuple[str, ...]:
        return tuple(self._orders)
