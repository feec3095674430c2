"""deploy.demo.stage: what it asks the registry itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deploy.demo.show import Show
from deploy.demo.stage import Stage, StoryFailed
from deploy.lab.server import free_port
from deploy.lab.system import System
from tests.unit.deploy.demo.test_bars import Told

MANIFEST = {"config": {"digest": "sha256:1"}, "layers": []}


class _Registry(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == "/v2/library/web/manifests/1"
        body = json.dumps(MANIFEST if known else {}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def address() -> Iterator[str]:
    """A registry that has `web:1` alone."""
    with HTTPServer(("127.0.0.1", 0), _Registry) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def stage(address: str, tmp_path: Any) -> Stage:
    registry = SimpleNamespace(address=address, url=f"http://{address}")
    system = cast(System, SimpleNamespace(registry=registry))
    return Stage(system=system, book=cast(Any, Told([])), show=Show(), folder=tmp_path)


def test_the_registry_is_asked_without_a_proxy(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """It is on loopback, where the proxy of the person's environment has nothing to do."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert stage(address, tmp_path).manifest("web:1") == MANIFEST


def test_a_registry_that_does_not_answer_is_said_so(tmp_path: Any) -> None:
    """As a failed step, which names the address."""
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(StoryFailed, match=f"the registry at {address} does not answer"):
        stage(address, tmp_path).manifest("web:1")


def test_an_image_that_the_registry_does_not_have_is_said_so(address: str, tmp_path: Any) -> None:
    """As a failed step, which names the image and the answer."""
    with pytest.raises(StoryFailed, match="the registry has no manifest of other:1: it answers 404"):
        stage(address, tmp_path).manifest("other:1")
