"""The proxy in front of the pull side, with the real HAProxy and registry: a token per pull, by digest, no more."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.container.health import problem_at
from deploy.container.range_proxy import configuration
from deploy.machine.commands import need
from deploy.machine.polling import poll
from tests.integration.stack.range_pulls import KEY, NOT_ITS_OWN, Proxy, token
from tests.laboratory import CacheServer, Lab, RegistryServer, free_port

LAYER = b"a layer of web" * 100


def _put(url: str, data: bytes, kind: str = "application/octet-stream") -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if kind == "application/octet-stream":
        with urllib.request.urlopen(
            urllib.request.Request(f"{url}/v2/team/web/blobs/uploads/", method="POST"), timeout=10
        ) as begun:
            where = f"{begun.headers['Location']}&digest={digest}"
    else:
        where = f"{url}/v2/team/web/manifests/1"
    request = urllib.request.Request(where, data=data, headers={"Content-Type": kind}, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    return digest


@pytest.fixture(scope="module", params=["registry", "cache"])
def proxy(
    request: pytest.FixtureRequest, lab: Lab, registry_server: RegistryServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """HAProxy as the stack configures it, on loopback: on the registry's host, and before the cache of another one."""
    layer, config = _put(registry_server.url, LAYER), _put(registry_server.url, b"{}")
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    blob = "application/vnd.docker.image.rootfs.diff.tar"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": config},
        "layers": [{"mediaType": blob, "size": len(LAYER), "digest": layer}],
    }
    digest = _put(registry_server.url, json.dumps(manifest).encode(), kind)
    port, other, health = free_port(), free_port(), free_port()
    file = tmp_path_factory.mktemp("proxy") / "haproxy.cfg"
    address = registry_server.address
    if request.param == "cache":
        place = lab.place("proxied-cache")
        address = lab.start(CacheServer("proxied-cache", place, lab.mark, origin=registry_server.url)).address
    file.write_text(
        configuration(
            KEY,
            registry=address,
            tar_server=address,
            registry_listen=f"127.0.0.1:{port}",
            tar_listen=f"127.0.0.1:{other}",
            health_listen=f"127.0.0.1:{health}",
        )
    )
    with subprocess.Popen([need("haproxy", "haproxy"), "-db", "-f", str(file)]) as process:
        try:
            found = Proxy(f"http://127.0.0.1:{port}", digest, layer)
            assert poll(lambda: _answers(found), seconds=20, every=0.1)
            assert problem_at(f"http://127.0.0.1:{health}/healthz") is None
            yield found
        finally:
            process.terminate()


def _answers(proxy: Proxy) -> bool:
    try:
        return proxy.get("/v2/") == 401
    except OSError:
        return False


def test_a_token_opens_its_repository_by_digest(proxy: Proxy) -> None:
    """What an engine asks for in a pull: the version check, the manifest, the blobs."""
    for path in ("/v2/", f"/v2/team/web/manifests/{proxy.manifest}", f"/v2/team/web/blobs/{proxy.layer}"):
        assert proxy.get(path, token()) == 200, path
    assert proxy.get(f"/v2/team/web/manifests/{proxy.manifest}", token(), method="HEAD") == 200


def test_without_a_token_an_engine_is_asked_for_one(proxy: Proxy) -> None:
    """401 with a challenge, also for the version check: only then does an engine send what it was given."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{proxy.url}/v2/", timeout=10)
    with refused.value as answer:
        assert answer.code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert proxy.get(f"/v2/team/web/manifests/{proxy.manifest}") == 401


@pytest.mark.parametrize("path", NOT_ITS_OWN)
def test_a_token_opens_nothing_else(path: str, proxy: Proxy) -> None:
    """No catalog, no tags, no other repository, no other way of writing the same."""
    assert proxy.get(path, token()) in (403, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_is_written(method: str, proxy: Proxy) -> None:
    """Whatever the token says."""
    assert proxy.get(f"/v2/team/web/manifests/{proxy.manifest}", token(), method=method, data=b"{}") == 405


def test_a_token_ends(proxy: Proxy) -> None:
    """It may be replayed until then, by whoever was given it, and not after."""
    assert proxy.get("/v2/", token(age_seconds=540)) == 200
    assert proxy.get("/v2/", token(age_seconds=3600)) == 401


def _forged(header: dict[str, object], claims: dict[str, object], key: str) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = hmac.new(key.encode(), b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def test_a_token_cannot_be_made_or_changed(proxy: Proxy) -> None:
    """Another key, no signature, another algorithm, other claims under the same signature, none at all."""
    claims: dict[str, object] = {"repository": "team/web", "exp": 2**31 - 1}
    head, _, signature = token().rpartition(".")
    other = token("team/other").split(".")[1]
    made = {
        "another key": token(key="f" * 48),
        "no signature": f"{head}.",
        "alg none": _forged({"alg": "none"}, claims, ""),
        "alg HS512": _forged({"alg": "HS512"}, claims, KEY),
        "other claims": f"{head.partition('.')[0]}.{other}.{signature}",
        "no end": _forged({"alg": "HS256"}, {"repository": "team/web"}, KEY),
        "an end that is no number": _forged({"alg": "HS256"}, {"repository": "team/web", "exp": "never"}, KEY),
        "rubbish": "a.b.c",
        "empty": "..",
    }
    path = f"/v2/team/web/manifests/{proxy.manifest}"
    assert {name: proxy.get(path, one) for name, one in made.items()} == dict.fromkeys(made, 401)


def test_a_key_that_would_change_the_configuration_is_refused(tmp_path: Path) -> None:
    """Quotes and line breaks are no part of a key."""
    for key in ("", 'a"b', "a\nb", "a b"):
        with pytest.raises(ValueError, match="letters and digits"):
            configuration(key)
