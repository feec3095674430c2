"""The same ways on newer engines and on both of their stores; what each can do is written down in `abilities`."""

from __future__ import annotations

import os
from typing import NamedTuple

import msgspec
import pytest

from services.core.ranges.abilities import abilities
from tests.images import tar_of
from tests.integration.agent.site import MEGABYTE, Site
from tests.integration.agent.test_loads import test_cancelling_stops_the_engines_load
from tests.integration.engines import build, pieces
from tests.laboratory import EngineServer, Lab

pytestmark = pytest.mark.real
__all__ = ["test_cancelling_stops_the_engines_load"]


class Kind(NamedTuple):
    """A version and a store."""

    version: str
    containerd: bool = False


KINDS = [Kind("26.1"), Kind("28.5"), Kind("28.5", containerd=True)]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind.version}{'-containerd' * kind.containerd}")
def newer(request: pytest.FixtureRequest, lab: Lab) -> EngineServer:
    """A range's engine of that kind."""
    kind: Kind = request.param
    name = f"agent-{kind.version}{'-c' * kind.containerd}"
    return lab.engine(name, version=kind.version, containerd_store=kind.containerd)


@pytest.fixture
def range_engine_server(newer: EngineServer) -> EngineServer:
    """The engine of the range of `site`."""
    return newer


async def test_every_way_an_image_comes(site: Site, unique: str) -> None:
    """Pulled, present, the rebuilt config loaded without a layer, a thin archive, a config-only one, a whole one."""
    info = await site.engine.info()
    thin = "thin_oci" if info.store == "containerd" else "thin_docker"
    assert abilities(info) == ("zstd", thin)
    names = [f"docker.io/{unique}/app:{number}" for number in range(4)]
    big, new = {"big": os.urandom(5 * MEGABYTE)}, os.urandom(MEGABYTE)
    base = await build(site.host, names[0], big)
    pushed = await site.push(names[0])
    async with site.agent(), site.tar_server():
        await site.say(site.pull_request(pushed))
        first = await site.ready()
        assert (first.how, first.received_bytes > 5 * MEGABYTE) == ("pulled", True)
        await site.say(site.pull_request(pushed, "again"))
        assert (await site.ready("again")).how == "present"
        await site.assert_named_alone(names[0], pushed.image_id)

        image = await build(site.host, names[1], big, {"new": new})
        request = site.tar_request(image, names[1], "thin")
        await site.say(request)
        asked = await site.asks_for_tar("thin")
        assert (asked.layout, asked.diff_ids) == ("oci" if thin == "thin_oci" else "docker", image.diff_ids[:2])
        await site.say(await site.offer(request, asked))
        ready = await site.ready("thin", skip=1)
        assert (ready.how, ready.layers_reused) == ("loaded", 2)
        assert MEGABYTE < ready.received_bytes < MEGABYTE + 30_000
        await site.assert_named_alone(names[1], image.local_id)
        assert site.files(names[1], ["/data/new", "/data/big"]) == {"/data/new": new, "/data/big": big["big"]}

        labelled = await _relabelled(site, names[2], base.references[0])
        request = site.pull_request(await site.push(names[2]), "config")
        await site.say(request)
        await site.say(await site.offer(request, await site.asks_for_tar("config")))
        ready = await site.ready("config", skip=1)
        assert (ready.how, ready.received_bytes < 20_000, ready.layers_reused) == ("loaded", True, 2)
        await site.assert_named_alone(names[2], labelled)

        whole = await build(site.host, names[3], {"other": os.urandom(2 * MEGABYTE)})
        request = site.tar_request(whole, names[3], "whole")
        await site.say(request)
        asked = await site.asks_for_tar("whole")
        await site.say(await site.offer(request, msgspec.structs.replace(asked, thin=False)))
        ready = await site.ready("whole", skip=1)
        assert (ready.how, ready.layers_reused) == ("loaded", 0)
        await site.assert_named_alone(names[3], whole.local_id)


async def _relabelled(site: Site, name: str, base: str) -> str:
    """The same layers under another config; its image id."""
    context = tar_of({"Dockerfile": f"FROM {base}\nLABEL changed=yes".encode()})
    async with site.host.build(pieces(context), reference=name) as log:
        async for _ in log:
            pass
    image = await site.host.inspect(name)
    assert image is not None
    return image.local_id
