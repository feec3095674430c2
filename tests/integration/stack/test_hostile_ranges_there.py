"""The range gateway of a further host: what a hostile range tries on the first host, tried again there.

The gateway reaches Redis through link and door, over TLS. The tests are those of its unit suite, on that bus.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from events.redis.bus import RedisBus
from events.streams import Streams
from tests.integration.stack.between_hosts import Hosts
from tests.unit.services.range_gateway.site import open_site
from tests.unit.services.range_gateway.test_role import (
    Opener,
    site,
    test_a_flood_is_slowed_then_cut_off_and_named,
    test_a_frame_that_is_announced_too_large_is_not_read,
    test_a_name_that_is_no_range_is_not_looked_up,
    test_a_range_has_a_few_connections_and_the_newest_stay,
    test_a_range_is_let_in_on_one_host_and_does_not_say_which,
    test_a_range_says_only_what_is_its_own,
    test_a_range_speaks_under_its_own_name,
    test_a_removed_range_is_out,
    test_a_transfer_goes_through,
    test_a_wrong_secret_is_denied,
    test_an_entry_over_64_kib_is_refused_and_a_list_of_images_is_not,
    test_messages_over_the_budget_wait,
    test_new_entries_are_told_at_once,
    test_progress_over_the_budget_is_dropped_and_the_lease_stays,
    test_what_is_no_request_ends_the_connection,
    test_whoever_does_not_read_answers_is_cut_off,
    test_whoever_says_no_hello_is_cut_off,
)

pytestmark = pytest.mark.real

#: Imported to be run here, with the `opener` of this module.
__all__ = [
    "site",
    "test_a_flood_is_slowed_then_cut_off_and_named",
    "test_a_frame_that_is_announced_too_large_is_not_read",
    "test_a_name_that_is_no_range_is_not_looked_up",
    "test_a_range_has_a_few_connections_and_the_newest_stay",
    "test_a_range_is_let_in_on_one_host_and_does_not_say_which",
    "test_a_range_says_only_what_is_its_own",
    "test_a_range_speaks_under_its_own_name",
    "test_a_removed_range_is_out",
    "test_a_transfer_goes_through",
    "test_a_wrong_secret_is_denied",
    "test_an_entry_over_64_kib_is_refused_and_a_list_of_images_is_not",
    "test_messages_over_the_budget_wait",
    "test_new_entries_are_told_at_once",
    "test_progress_over_the_budget_is_dropped_and_the_lease_stays",
    "test_what_is_no_request_ends_the_connection",
    "test_whoever_does_not_read_answers_is_cut_off",
    "test_whoever_says_no_hello_is_cut_off",
]


@pytest.fixture
async def opener(hosts: Hosts, key_prefix: str, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens a site on the further host, over the first one's Redis."""
    streams = Streams(key_prefix)
    async with RedisBus.open(hosts.redis_url, streams=streams) as bus:
        yield partial(open_site, tmp_path, bus=bus, streams=streams)
