"""Whatever a request brings, the answer is one that the OpenAPI document has for its route, and never a 5xx."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from services.api.authentication import NoAuthentication
from services.api.openapi import plain_path
from services.api.route import Route
from services.api.routes import ROUTES, document
from services.api.server import application
from services.runtime.http_server import listening
from services.runtime.problem_response import PROBLEM_TYPE
from tests.fuzz.mutations import PIECES, TIMES, mutated
from tests.unit.services.api.site import api_context
from tests.unit.services.twins import Cluster

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
#: Values that come near to what is meant.
NEAR = st.sampled_from(["r1", "web:1", "tcp://127.0.0.1:2375", "linux/amd64", 5, ["web:1"], ["r1"], "a" * 2000])
TEXT = st.text(max_size=40) | st.sampled_from(["r1", "..", "*", "1", "true", "\0", "9" * 5000])


def _bodies(route: Route[Any, Any, Any]) -> st.SearchStrategy[bytes]:
    names = [field.encode_name for field in msgspec.structs.fields(route.body)]
    meant = st.fixed_dictionaries({}, optional={name: NEAR | JSON for name in names})
    return st.binary(max_size=50) | (meant | JSON).map(lambda value: json.dumps(value).encode())


def _urls(route: Route[Any, Any, Any]) -> st.SearchStrategy[str]:
    """Paths with anything in the places of parameters, and queries with known and unknown names."""
    names = [field.encode_name for field in msgspec.structs.fields(route.query)]
    parts = re.split(r"\{\w+(?::[^}]*)?\}", route.path)
    values = st.lists(TEXT.filter(bool), min_size=len(parts) - 1, max_size=len(parts) - 1)
    query = st.lists(st.tuples(st.sampled_from([*names, "other"]), TEXT), max_size=2)

    def made(drawn: tuple[list[str], list[tuple[str, str]]]) -> str:
        filled, pairs = drawn
        path = parts[0] + "".join(_quoted(value) + part for value, part in zip(filled, parts[1:], strict=True))
        return path + ("?" + "&".join(f"{name}={_quoted(value)}" for name, value in pairs) if pairs else "")

    return st.tuples(values, query).map(made)


def _quoted(text: str) -> str:
    return quote(text.encode(errors="surrogatepass"), safe="")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
@settings(max_examples=10 * TIMES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_answer_is_documented(route: Route[Any, Any, Any], data: st.DataObject) -> None:
    """Of a request that fits, or comes near, or is nothing at all."""
    requests = [(data.draw(_urls(route)), data.draw(_bodies(route))) for _ in range(3)]
    asyncio.run(_asked(route, requests))


@asynccontextmanager
async def _api() -> AsyncIterator[int]:
    """A server over fakes; its port."""
    world = Cluster()
    context = replace(api_context(world), answer_seconds=0.01)  # there is no collector to wait for
    context.feed.ready.set()
    context.feed.broadcast.close()  # the stream of events ends after its beginning
    app = application(context, authenticator=NoAuthentication())
    async with listening(app, "127.0.0.1", 0) as (_, port):
        yield port


def _documented(route: Route[Any, Any, Any]) -> set[str]:
    return set(document()["paths"][plain_path(route.path)][route.method.lower()]["responses"])


async def _asked(route: Route[Any, Any, Any], requests: list[tuple[str, bytes]]) -> None:
    documented = _documented(route)
    headers = {"Content-Type": "application/json"}
    async with _api() as port, aiohttp.ClientSession() as client:
        for url, body in requests:
            target = URL(f"http://127.0.0.1:{port}{url}", encoded=True)
            async with client.request(route.method, target, data=body, headers=headers) as answer:
                text = await answer.text()
                # "." and ".." lead to another path, as in every client
                assert str(answer.status) in documented | {"404", "405"}, (url, body, text)
                # without a way to import, which these fakes have not, 503 is the right answer to what fits by chance
                assert answer.status < 500 or "imports and promotes nothing" in text, (url, body, text)
                if answer.status >= 400:
                    assert answer.content_type == PROBLEM_TYPE


HEADERS = (
    b"Host: evil.example",
    b"Host: [",
    b"Host: 127.0.0.1\r\nHost: 127.0.0.1",
    b"Host: \xff",
    b"Origin: http://[",
    b"Origin: null",
    b"Origin: \xff",
    b"Sec-Fetch-Site: cross-site",
    b"Content-Type: application/json",
    b"Content-Type: application/json; charset=\xff",
    b"Content-Type: text/plain",
    b"Content-Type: ;;;",
    b"Content-Encoding: gzip",
    b"Content-Encoding: br",
    b"Content-Encoding: zstd",
    b"Content-Encoding: what",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: " + b"9" * 5000,
    b"Expect: 100-continue",
    b"Expect: nothing",
    b"Upgrade: h2c\r\nConnection: Upgrade",
    b"Upgrade: websocket\r\nConnection: Upgrade",
    b"Authorization: Bearer \xff",
    b"Authorization: Basic " + b"x" * 7000,
    b"Idempotency-Key: \xff\xfe",
    b"Idempotency-Key: " + b"k" * 7000,
    b'Cookie: a="\xff',
    b"Range: bytes=a-",
    b"If-Modified-Since: never",
    b"Accept: \xff",
    b"X-Y: " + b"z" * 9000,
    b"no colon",
    b": no name",
    b" folded",
)
QUERIES = (
    b"limit=" + b"9" * 5000,
    b"limit=1&limit=2",
    b"limit=%D9%A3",
    b"limit=1e5",
    b"limit=-1",
    b"cursor=%00",
    b"%00=%00",
    b"a=%ff",
    b"a=%ZZ",
    b"=&&==&",
    b"tag=" + b"x" * 3000,
    b"force=maybe",
    b"force=true&force=true",
)
VALUES = (b"r1", b"%00", b"%ff", b"%ZZ", b"..", b"%2e%2e", b"a/b:1", b"x" * 3000, b"%2f", b"\xff", b"*", b"a%0d%0ab")
BODIES = (
    b"",
    b"{}",
    b"[" * 10_000,
    b'{"images":' + b"[" * 10_000,
    b'{"deployment_id":"d1","range_id":"r1","images":["web:1"]}',
    b'{"images":["web:1"],"priority":1e400}',
    b"\xff\xfe",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"zz\r\n",
    b"\x1f\x8b\x08\x00garbage",
    b"x" * 20_000,
)
#: What any request may be answered, whatever its route: it is no request that the route sees.
OF_ANY = {"400", "403", "404", "405", "408", "413", "415", "417", "421"}


def _request(route: Route[Any, Any, Any], dice: Random) -> bytes:
    path = re.sub(rb"\{\w+(?::[^}]*)?\}", lambda _: dice.choice(VALUES), route.path.encode())
    query = b"?" + b"&".join(dice.choice(QUERIES) for _ in range(dice.choice((1, 2)))) if dice.random() < 0.5 else b""
    names = [field.encode_name for field in msgspec.structs.fields(route.query)]
    if query and names and dice.random() < 0.7:
        query += b"&" + dice.choice(names).encode() + b"=" + dice.choice(VALUES)
    method = (
        route.method.encode() if dice.random() < 0.9 else dice.choice((b"HEAD", b"PUT", b"OPTIONS", b"TRACE", b"X"))
    )
    headers = [b"Host: 127.0.0.1"] if dice.random() < 0.9 else []
    body = dice.choice(BODIES) if dice.random() < 0.6 else b""
    if body and dice.random() < 0.8:
        headers += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    headers += [dice.choice(HEADERS) for _ in range(dice.choice((0, 0, 1, 1, 2)))]
    whole = b"%b %b HTTP/1.1\r\n%b\r\nConnection: close\r\n\r\n%b" % (
        method,
        path + query,
        b"\r\n".join(headers),
        body,
    )
    if dice.random() < 0.1:
        return mutated(whole, dice.randrange(2**32))
    return whole if dice.random() < 0.97 else dice.choice(PIECES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_every_byte_sequence_gets_an_answer_that_is_documented(route: Route[Any, Any, Any]) -> None:
    """Heads, bodies and queries as no client sends them: never a 5xx, and every error is a problem document."""
    dice = Random(route.path + route.method)
    documented = _documented(route) | OF_ANY
    async with _api() as port:
        for _ in range(30 * TIMES):
            request = _request(route, dice)
            for status, kind in await _answers(port, request):
                assert status in documented | {"100"}, (request, status)
                assert status < "500", request
                assert status < "400" or kind == PROBLEM_TYPE, (request, status, kind)


async def _answers(port: int, request: bytes) -> list[tuple[str, str]]:
    """Status and content type of everything that the server says; it closes the connection by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    writer.write_eof()
    try:
        async with asyncio.timeout(30):
            text = (await reader.read()).decode(errors="replace")
    except ConnectionError:
        text = ""
    finally:
        writer.close()
    heads = re.findall(r"^HTTP/1\.[01] (\d{3})[^\r]*\r\n((?:[^\r\n]+\r\n)*)\r\n", text, re.MULTILINE)
    kinds = [re.search(r"(?i)^content-type: ([^;\r]+)", head, re.MULTILINE) for _, head in heads]
    return [(status, kind[1] if kind else "") for (status, _), kind in zip(heads, kinds, strict=True)]
