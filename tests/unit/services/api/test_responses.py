"""Responses of reads: ETag, 304 and compression."""

from __future__ import annotations

import gzip

import aiohttp

from tests.unit.services.api.site import Service

LIST = "/api/v1/registry/repositories"


async def test_what_did_not_change_is_not_sent_again(service: Service) -> None:
    """304 with the same ETag, by weak comparison and in a list of them; something else is sent."""
    async with service.client.get(LIST) as answer:
        etag = answer.headers["ETag"]
        assert answer.headers["Cache-Control"] == "private, no-cache"
    for header in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        async with service.client.get(LIST, headers={"If-None-Match": header}) as answer:
            assert (answer.status, await answer.read(), answer.headers["ETag"]) == (304, b"", etag)
    async with service.client.get(LIST, headers={"If-None-Match": '"other"'}) as answer:
        assert answer.status == 200


async def test_a_long_answer_is_compressed_for_who_takes_it(service: Service) -> None:
    """And for nobody else; a short one is not worth it."""
    for number in range(100):
        await service.push(f"web-{number}:1", b"x")
    await service.scan()
    path = "/api/v1/registry/images?limit=100"
    async with aiohttp.ClientSession(auto_decompress=False) as plain:
        url = service.client.make_url(path)
        async with plain.get(url, headers={"Accept-Encoding": "br, gzip;q=0.5"}) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert "Accept-Encoding" in answer.headers["Vary"]
            unpacked = gzip.decompress(await answer.read())
        for header in ("br", "gzip;q=0", "identity"):
            async with plain.get(url, headers={"Accept-Encoding": header}) as answer:
                assert "Content-Encoding" not in answer.headers
                assert await answer.read() == unpacked
        async with plain.get(service.client.make_url("/livez"), headers={"Accept-Encoding": "gzip"}) as answer:
            assert "Content-Encoding" not in answer.headers
