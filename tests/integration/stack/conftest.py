"""The way between two hosts, for all suites that go through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deploy.container.host_door import door
from deploy.container.host_link import link
from deploy.stack.certificates import make_door, make_host
from tests.integration.stack.between_hosts import Hosts, haproxy
from tests.laboratory import RedisServer, RegistryServer, free_port


@pytest.fixture(scope="session")
def hosts(
    redis_server: RedisServer, registry_server: RegistryServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosts]:
    """A door, and the link of host `b`, on loopback."""
    folder = tmp_path_factory.mktemp("hosts")
    make_door(folder, ["127.0.0.1"])
    own = make_host(folder, "b")
    for_redis, for_registry, redis, registry, health, other, tar_server, tar = (free_port() for _ in range(8))
    further_tar, archives, door_tar = (free_port() for _ in range(3))
    first = door(
        redis=f"127.0.0.1:{redis_server.port}",
        registry=registry_server.address,
        tar_server=f"127.0.0.1:{tar_server}",
        redis_listen=f"127.0.0.1:{for_redis}",
        registry_listen=f"127.0.0.1:{for_registry}",
        archives_listen=f"127.0.0.1:{door_tar}",
        health_listen=f"127.0.0.1:{health}",
        further={"b": f"127.0.0.1:{archives}", "b.c": "127.0.0.1:1"},
        certificates=folder / "door",
    )
    further = link(
        "127.0.0.1",
        redis_port=for_redis,
        registry_port=for_registry,
        redis_listen=f"127.0.0.1:{redis}",
        registry_listen=f"127.0.0.1:{registry}",
        tar_listen=f"127.0.0.1:{tar}",
        archives_listen=f"127.0.0.1:{archives}",
        own_tar=f"127.0.0.1:{further_tar}",
        health_listen=f"127.0.0.1:{other}",
        certificates=own,
    )
    with ExitStack() as stack:
        stack.enter_context(haproxy(folder / "door.cfg", first, for_redis, for_registry, door_tar))
        stack.enter_context(haproxy(folder / "link.cfg", further, redis, registry, tar, archives))
        yield Hosts(
            certificates=folder,
            redis_port=redis,
            registry_port=registry,
            door_redis_port=for_redis,
            tar_server_port=tar_server,
            link_tar_port=tar,
            further_tar_port=further_tar,
            archives_port=archives,
            door_tar_port=door_tar,
        )
