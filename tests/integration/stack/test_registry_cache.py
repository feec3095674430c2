"""The cache of a host, with the real nginx and registry: what it fetches, what it keeps, what it refuses."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.container.registry_cache import configuration
from deploy.machine.polling import poll
from tests.integration.stack.raw_registry import Answer, ask, digest_of, put_blob, put_image
from tests.laboratory import CacheServer, EngineServer, Lab, RegistryServer

pytestmark = pytest.mark.real

REPOSITORY = "team/web"
#: Three slices, the last one not whole.
BIG = os.urandom(1 << 20) * 40
FRESH_SECONDS = 2


@dataclass
class Site:
    """A registry elsewhere, and the cache of one host in front of it."""

    origin: RegistryServer
    cache: CacheServer

    def blob(self, digest: str, repository: str = REPOSITORY, **more: object) -> Answer:
        return ask(f"{self.cache.url}/v2/{repository}/blobs/{digest}", **more)  # type: ignore[arg-type]

    def manifest(self, name: str, repository: str = REPOSITORY) -> Answer:
        return ask(f"{self.cache.url}/v2/{repository}/manifests/{name}")

    @contextlib.contextmanager
    def fetched(self) -> Iterator[Callable[[], int]]:
        """How many bytes of blobs the origin has sent since."""
        since = self.origin.log.stat().st_size

        def count() -> int:
            asked = self.origin.requests(since)
            return sum(one.sent_bytes for one in asked if one.method == "GET" and "/blobs/" in one.path)

        yield count


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    """Both of its own: tests stop the origin."""
    origin = lab.registry("cached-registry")
    cache = CacheServer("cache", lab.place("cache"), lab.mark, origin=origin.url, fresh_seconds=FRESH_SECONDS)
    return Site(origin, lab.start(cache))


@pytest.fixture(scope="module", autouse=True)
def full(lab: Lab, site: Site) -> CacheServer:
    """A cache with room for two slices, through which 80 MB have gone: it makes room while the other tests run."""
    place = lab.place("small-cache")
    small = lab.start(CacheServer("small-cache", place, lab.mark, origin=site.origin.url, max_size="32m"))
    for number in range(2):
        digest = put_blob(site.origin.url, "team/small", b"%d" % number + BIG)
        assert len(ask(f"{small.url}/v2/team/small/blobs/{digest}").body) == len(BIG) + 1
    return small


def test_each_byte_leaves_the_origin_once(site: Site) -> None:
    """Four at the same time, with nothing there yet; and afterwards none at all, for any of them."""
    digest = put_blob(site.origin.url, REPOSITORY, BIG)
    with site.fetched() as count:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(site.blob, [digest] * 4))
        assert {digest_of(answer.body) for answer in answers} == {digest}
        assert len(BIG) <= count() <= 1.05 * len(BIG)
        before = count()
        assert site.blob(digest).body == BIG
        assert count() == before


def test_parts_and_heads_are_answered_as_a_registry_does(site: Site) -> None:
    """A range over the border of two slices, one past the end, the head alone; the same digest in each."""
    digest = put_blob(site.origin.url, REPOSITORY, BIG)
    head = site.blob(digest, method="HEAD")
    assert (head.status, head.body, int(head.headers["Content-Length"])) == (200, b"", len(BIG))
    assert head.headers["Docker-Content-Digest"] == digest
    border = 16 << 20
    part = site.blob(digest, headers={"Range": f"bytes={border - 5}-{border + 4}"})
    assert (part.status, part.body) == (206, BIG[border - 5 : border + 5])
    assert part.headers["Content-Range"] == f"bytes {border - 5}-{border + 4}/{len(BIG)}"
    rest = site.blob(digest, headers={"Range": f"bytes={len(BIG) - 3}-", "Accept-Encoding": "gzip"})
    assert (rest.status, rest.body, rest.headers["Content-Encoding"]) == (206, BIG[-3:], None)
    assert site.blob(digest, headers={"Range": f"bytes={len(BIG)}-"}).status == 416
    assert site.blob(digest, headers={"Range": "bytes=nothing"}).status == 416


def test_a_layer_of_two_repositories_is_kept_once_and_opens_neither(site: Site) -> None:
    """The second repository that has it costs nothing; one that does not have it does not get it."""
    digest = put_blob(site.origin.url, REPOSITORY, b"shared" * 1000)
    assert site.blob(digest).status == 200
    assert site.blob(digest, "team/other").status == 404
    put_blob(site.origin.url, "team/other", b"shared" * 1000)
    with site.fetched() as count:
        assert poll(lambda: site.blob(digest, "team/other").status == 200, seconds=30, every=0.3)
        assert count() == 0


def test_what_the_host_has_is_there_while_the_origin_is_away(site: Site) -> None:
    """By digest and by tag, also long after the last question; what it never had is unavailable, not unknown."""
    layer, unseen = b"a layer" * 1000, put_blob(site.origin.url, REPOSITORY, b"never asked for")
    manifest = put_image(site.origin.url, REPOSITORY, layer, tag="kept")
    first = [site.manifest(manifest), site.manifest("kept"), site.blob(digest_of(layer))]
    site.origin.kill()
    try:
        assert [site.manifest(manifest), site.manifest("kept"), site.blob(digest_of(layer))][0].body == first[0].body
        assert site.manifest("kept").body == first[1].body
        assert site.blob(digest_of(layer)).body == layer
        assert site.blob(unseen).status == 503
        assert site.manifest("never-seen").status == 503
        assert ask(f"{site.cache.url}/v2/").status == 200
    finally:
        site.origin.start()
    assert site.blob(unseen).body == b"never asked for"


def test_what_was_deleted_at_the_origin_goes_here(site: Site) -> None:
    """Within the time that answers are believed for; and it does not come back when the origin goes away."""
    layer = b"to be deleted" * 1000
    manifest = put_image(site.origin.url, REPOSITORY, layer, tag="deleted")
    held = [f"manifests/{manifest}", "manifests/deleted", f"blobs/{digest_of(layer)}"]
    urls = [f"{site.cache.url}/v2/{REPOSITORY}/{one}" for one in held]
    assert [ask(url).status for url in urls] == [200] * 3
    for one in (held[0], held[2]):
        assert ask(f"{site.origin.url}/v2/{REPOSITORY}/{one}", method="DELETE").status == 202
    assert poll(lambda: [ask(url).status for url in urls] == [404] * 3, seconds=60, every=0.5)
    site.origin.kill()
    try:
        assert 200 not in [ask(url).status for url in urls]
    finally:
        site.origin.start()


def test_a_cache_of_a_cache(lab: Lab, site: Site) -> None:
    """The same software again: the second asks the first, and the origin still sends each byte once."""
    place = lab.place("second-cache")
    second = lab.start(CacheServer("second-cache", place, lab.mark, origin=site.cache.url))
    data = b"two levels" + BIG
    manifest = put_image(site.origin.url, REPOSITORY, data)
    with site.fetched() as count:
        for _ in range(2):
            assert ask(f"{second.url}/v2/{REPOSITORY}/manifests/{manifest}").status == 200
            assert ask(f"{second.url}/v2/{REPOSITORY}/blobs/{digest_of(data)}").body == data
        assert len(data) <= count() <= 1.05 * len(data)
    second.stop()


def test_a_client_that_breaks_off_harms_nobody(site: Site) -> None:
    """What had begun is kept or fetched again; the next one gets the whole."""
    digest = put_blob(site.origin.url, REPOSITORY, b"broken off" + BIG)
    with site.fetched() as count:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", site.cache.port), timeout=30) as client:
                client.sendall(f"GET /v2/{REPOSITORY}/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert client.recv(1000).startswith(b"HTTP/1.1 200")
        assert digest_of(site.blob(digest).body) == digest
        assert count() <= 1.05 * len(BIG)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
def test_nothing_is_written(site: Site, method: str) -> None:
    """Only GET and HEAD are taken, whatever is asked for."""
    with site.fetched():
        assert ask(f"{site.cache.url}/v2/{REPOSITORY}/blobs/uploads/", method=method, data=b"x").status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/v2/_catalog",
        "/v2/team/web/tags/list",
        "/v2/team/web/blobs/uploads/",
        "/v2/team/web/blobs/sha256:" + "0" * 63,
        "/v2/team/web/blobs/sha512:" + "0" * 128,
        "/v2/team/web/manifests/" + "x" * 200,
        "/v2/team/web/../../metrics",
        "/v2/team/web/%2e%2e/%2e%2e/blobs/sha256:" + "0" * 64 + "/x",
        "/has-blob",
        "/debug/vars",
        "/",
    ],
)
def test_garbage_does_not_reach_the_origin(site: Site, path: str) -> None:
    """It is answered here."""
    since = site.origin.log.stat().st_size
    assert ask(f"{site.cache.url}{path}").status in (400, 403, 404)
    assert not [one for one in site.origin.requests(since) if one.path != "/v2/"]


@dataclass
class Odd:
    """An origin that answers as no registry should. `asked` are the headers that reached it."""

    body: bytes
    digest: str
    headers: dict[str, str]
    promised: int = 0
    asked: list[dict[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def odd_origin(lab: Lab, odd: Odd) -> Iterator[CacheServer]:
    """A cache in front of it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(odd.promised or len(odd.body)))
            self.end_headers()

        def do_GET(self) -> None:
            odd.asked.append(dict(self.headers.items()))
            self.send_response(200)
            self.send_header("Content-Length", str(odd.promised or len(odd.body)))
            self.send_header("Docker-Content-Digest", odd.digest)
            for name, value in odd.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(odd.body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        name = f"cache-{server.server_port}"
        cache = CacheServer(name, lab.place(name), lab.mark, origin=f"http://127.0.0.1:{server.server_port}")
        try:
            yield lab.start(cache)
        finally:
            cache.stop()
            server.shutdown()


def test_an_origin_without_ranges_is_cached_all_the_same(lab: Lab) -> None:
    """What it says of caching, cookies and variants counts for nothing, nor what a client says of itself."""
    body = b"whole" * 1000
    odd = Odd(
        body, digest_of(body), {"Cache-Control": "no-store", "Set-Cookie": "a=b", "Vary": "*", "X-Accel-Expires": "0"}
    )
    with odd_origin(lab, odd) as cache:
        url = f"{cache.url}/v2/{REPOSITORY}/blobs/{odd.digest}"
        hostile = {"Cookie": "mine=1", "Accept-Encoding": "gzip", "If-None-Match": "*", "X-Forwarded-For": "1.2.3.4"}
        answers = [ask(f"{url}?x=1", headers=hostile) for _ in range(3)]
        assert {answer.status for answer in answers} <= {200, 304}
        assert ask(url).body == body
        assert len(odd.asked) == 1
        assert not {"Cookie", "Accept-Encoding", "If-None-Match", "X-Forwarded-For"} & odd.asked[0].keys()
        assert "Set-Cookie" not in ask(url).headers


@pytest.mark.parametrize("what", ["another digest", "cut short"])
def test_what_is_not_the_blob_is_not_kept(lab: Lab, what: str) -> None:
    """An answer of something else, and one that ends too early: the next one asks the origin again."""
    right, wrong = b"right" * 1000, b"wrong" * 1000
    odd = (
        Odd(wrong, digest_of(wrong), {})
        if what == "another digest"
        else Odd(right[:50], digest_of(right), {}, len(right))
    )
    with odd_origin(lab, odd) as cache:
        url = f"{cache.url}/v2/{REPOSITORY}/blobs/{digest_of(right)}"
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert ask(url).body != right
        odd.body, odd.digest, odd.promised = right, digest_of(right), 0
        assert ask(url).body == right


def test_engines_pull_through_it(
    lab: Lab, site: Site, host_engine_server: EngineServer, range_engine_servers: tuple[EngineServer, EngineServer]
) -> None:
    """What the first engine pulled, the second has without the origin."""
    name = f"{REPOSITORY}:engines"
    host_engine_server.docker("import", str(lab.base_image_tar()), f"{site.origin.address}/{name}")
    host_engine_server.docker("push", f"{site.origin.address}/{name}")
    first, second = range_engine_servers
    first.docker("pull", f"{site.cache.address}/{name}")
    site.origin.kill()
    try:
        second.docker("pull", f"{site.cache.address}/{name}")
    finally:
        site.origin.start()
    for engine in (first, second):
        engine.docker("rmi", f"{site.cache.address}/{name}")
    host_engine_server.docker("rmi", f"{site.origin.address}/{name}")


def test_the_disk_is_bounded(full: CacheServer) -> None:
    """What was asked for least lately goes; what is asked for again is fetched again."""

    def kept() -> int:
        return sum(path.stat().st_size for path in full.content.rglob("*") if path.is_file())

    assert poll(lambda: kept() <= 40 << 20, seconds=60, every=0.5), kept()


@pytest.mark.parametrize(
    ("origin", "more"),
    [
        ("registry:5000", {}),
        ("ftp://registry:5000", {}),
        ("http://a:b@registry:5000", {}),
        ("http://registry:5000/v2", {}),
        ("http://registry; include /etc/passwd;", {}),
        ("http://registry:5000", {"max_size": "much"}),
        ("http://registry:5000", {"min_free": "1; #"}),
        ("http://registry:5000", {"folder": Path("/a b")}),
    ],
)
def test_what_would_change_the_configuration_is_refused(origin: str, more: dict[str, object]) -> None:
    """An address is one of a registry, a size one that nginx knows."""
    with pytest.raises(ValueError, match=r"address|plain|size"):
        configuration(origin, **more)  # type: ignore[arg-type]
