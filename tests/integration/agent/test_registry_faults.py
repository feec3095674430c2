"""A registry that fails at each request of a real engine's push, of a range's pull, and of the tar server's reading."""

from __future__ import annotations

import hashlib
import os
from contextlib import aclosing

import pytest

from events.messages import TarRequested
from services.adapters.layer_sources import layer_sources
from services.adapters.registry import HttpRegistry
from services.agent import Patience
from services.core.images.image import EngineImage
from services.core.images.manifests import sha256
from services.errors import CyroidError, WrongContent
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from services.tar_server.image_reader import ImageReader
from tests.images import tar_of
from tests.integration.agent.site import Site
from tests.integration.faulty_registry import Fault, FaultyRegistry, faulty_registry
from tests.integration.test_layer_sources import load

pytestmark = pytest.mark.real


async def push(site: Site, proxy: FaultyRegistry, registry: HttpRegistry, name: str) -> str:
    """As a process that has just started; the manifest's digest."""
    sources = layer_sources(site.host, engine_root=site.host_root)
    encodings = LayerEncodings(bus=site.bus, prefix=site.streams.prefix)
    layers = LayerPush(registry=registry, sources=sources, encodings=encodings, parallel_layers=1)
    image_push = ImagePush(
        engine=site.host, registry=registry, sources=sources, layers=layers, engine_registry=proxy.address
    )
    return (await image_push.push(name)).manifest_digest


async def whole(site: Site, repository: str, image: EngineImage) -> bool:
    """Whether the tag is there; if it is, all that it names must be there and right."""
    found = await site.registry.manifest(repository, "1")
    if found is None:
        return False
    assert found[1].body.config.digest == image.image_id
    assert tuple(blob.digest for blob in found[1].body.layers) == image.diff_ids
    for blob in found[1].body.layers:
        async with site.registry.open_blob(repository, blob.digest) as chunks:  # verifies the digest at its end
            assert sum([len(chunk) async for chunk in chunks]) == blob.size
    return True


@pytest.mark.parametrize("faults", [("error_500", "corrupt_request"), ("cut_request", "stall_request")])
async def test_no_fault_at_any_request_of_a_push_makes_half_an_image(
    site: Site, unique: str, faults: tuple[Fault, Fault]
) -> None:
    """From a real layer store: pushed, or failed with an error of ours and nothing but whole images in sight.

    Two kinds of fault take turns from request to request.
    """
    number = 0
    async with (
        faulty_registry(f"http://{site.registry.address}") as proxy,
        HttpRegistry.open(f"http://{proxy.address}", answer_seconds=2, stall_seconds=1) as through,
    ):
        while True:
            repository = f"{unique}/{number}"
            name = f"docker.io/{repository}:1"
            layers = [tar_of({"t/small": os.urandom(1000)}), tar_of({"t/large": os.urandom(2_500_000)})]
            image = await load(site.host, name, layers)
            proxy.arm(faults[number % 2], number)
            try:
                await push(site, proxy, through, name)
            except CyroidError:
                await whole(site, repository, image)
            else:
                assert await whole(site, repository, image)
            struck = proxy.struck
            proxy.arm(faults[0], None)
            await push(site, proxy, through, name)
            assert await whole(site, repository, image)
            if not struck:
                break
            number += 1
    assert number >= 10, "the faults were to reach every request of a push"


@pytest.mark.parametrize("faults", [("error_500", "corrupt_answer"), ("cut_answer", "stall_answer")])
async def test_a_fault_at_any_request_of_a_pull_ends_in_the_right_image(
    site: Site, unique: str, faults: tuple[Fault, Fault]
) -> None:
    """The engine gets over it, or the agent asks for a tar: in the end the range has the image, and nothing else.

    Two kinds of fault take turns from request to request.
    """
    number, ways = 0, set[str]()
    async with (
        faulty_registry(f"http://{site.registry.address}") as proxy,
        site.agent(Patience(stall_seconds=2, retry_seconds=0.5)),
        site.tar_server(),
    ):
        while True:
            name, transfer_id = f"docker.io/{unique}/{number}:1", f"t{number}"
            content = os.urandom(2_500_000)
            image = await load(site.host, name, [tar_of({"large": content})])
            request = site.pull_request(await site.push(name), transfer_id, address=proxy.address)
            proxy.arm(faults[number % 2], number)
            await site.say(request)
            answer = await site.answer(transfer_id)
            if isinstance(answer, TarRequested):
                assert await site.engine.inspect(image.local_id) is None
                await site.say(await site.offer(request, answer))
            ready = await site.ready(transfer_id, skip=int(isinstance(answer, TarRequested)))
            ways.add(ready.how)
            arrived = await site.assert_named_alone(name, image.local_id)
            assert [one for one in arrived.repo_digests if proxy.address in one] == []
            assert site.files(name, ["/large"]) == {"/large": content}
            if not proxy.struck:
                break
            number += 1
    assert number >= 4, "the registry, manifest, config and layer"
    assert "pulled" in ways


@pytest.mark.parametrize("fault", ["error_500", "cut_answer", "corrupt_answer", "stall_answer"])
async def test_a_fault_at_any_blob_the_tar_server_reads_is_made_up_by_the_host(
    site: Site, unique: str, fault: Fault
) -> None:
    """It goes on from the layer store at the same byte, or says that the bytes were wrong; never gives wrong ones."""
    name = f"docker.io/{unique}/app:1"
    layer = tar_of({"large": os.urandom(2_500_000)})
    image = await load(site.host, name, [layer])
    await site.push(name)
    number, right = 0, 0
    async with (
        faulty_registry(f"http://{site.registry.address}") as proxy,
        HttpRegistry.open(f"http://{proxy.address}", answer_seconds=0.5, stall_seconds=0.5) as through,
    ):
        sources = layer_sources(site.host, engine_root=site.host_root)
        reader = ImageReader(engine=site.host, sources=sources, registry=through, patience_seconds=1)
        while True:
            proxy.arm(fault, number)
            opened = await reader.open(name, image.local_id, image.diff_ids)
            state = hashlib.sha256()
            try:
                async with aclosing(opened.layer(sha256(layer))) as chunks:
                    async for chunk in chunks:
                        state.update(chunk)
            except WrongContent:
                assert fault == "corrupt_answer"
            else:
                assert f"sha256:{state.hexdigest()}" == sha256(layer)
                right += 1
            if not proxy.struck:
                break
            number += 1
    assert number >= 3, "the config, the layer's size and the layer"
    assert right >= number
