"""docs/http.md says which doors there are."""

from __future__ import annotations

import re
from pathlib import Path

from aiohttp import web

from services.api.app import Api
from services.statistics import Statistics
from tests.unit.services.twins import STREAMS, World

PAGE = Path(__file__).parents[4] / "docs/http.md"


def test_the_page_lists_every_door_and_no_other() -> None:
    """Method and path of each, once."""
    world = World()
    api = Api(
        bus=world.bus,
        streams=STREAMS,
        registry=world.registry,
        engine=world.engine,
        statistics=Statistics(registry=world.registry),
        source="api@t",
    )
    # A GET answers HEAD as well, and a path may say what a part of it matches.
    doors = sorted((route.method, _path(route)) for route in api.app().router.routes() if route.method != "HEAD")
    told = re.findall(r"^\| `(GET|POST|PUT|PATCH|DELETE) (/\S*)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(told) == doors


def _path(route: web.AbstractRoute) -> str:
    assert route.resource is not None
    return route.resource.canonical
