"""The health check of a container, against a small HTTP server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy.container import health

WELL = ("/livez", "/_ping")


class Answers(BaseHTTPRequestHandler):
    """200 under /livez and /_ping, 503 with a reason elsewhere."""

    def do_GET(self) -> None:
        body = b"{}" if self.path in WELL else b'{"status":"unavailable"}'
        self.send_response(200 if self.path in WELL else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_listener_that_answers_is_healthy(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0, nothing written."""
    assert health.main([f"{url}/livez"]) == 0
    assert capsys.readouterr().err == ""


def test_one_that_is_not_ready_is_not(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1 and what it answered, for the container's health log."""
    assert health.main([f"{url}/readyz"]) == 1
    assert capsys.readouterr().err == f'{url}/readyz answered 503: {{"status":"unavailable"}}\n'


def test_nobody_there_is_not_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1 and the reason."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert health.main([f"http://127.0.0.1:{port}/livez"]) == 1
    assert "refused" in capsys.readouterr().err


def test_every_url_has_to_answer(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of several the one that does not is named."""
    assert health.main([f"{url}/livez", f"{url}/_ping"]) == 0
    assert health.main([f"{url}/livez", f"{url}/readyz", f"{url}/_ping"]) == 1
    assert capsys.readouterr().err.count("answered 503") == 1


def test_no_url_is_a_mistake() -> None:
    """In the Compose file: exit status 2."""
    assert health.main([]) == 2


def test_what_answers_something_else_is_not_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    """A listener that closes, or speaks no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=close)
        thread.start()
        assert health.main([f"http://127.0.0.1:{server.getsockname()[1]}/livez"]) == 1
        thread.join()
    assert capsys.readouterr().err.startswith("http://127.0.0.1:")


def test_a_word_that_is_no_url_is_not_healthy() -> None:
    """Exit status 1."""
    assert health.main(["sideways"]) == 1


def test_an_engine_behind_a_socket_is_asked_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Well while it answers; else with the reason."""

    class Server(HTTPServer):
        address_family = socket.AF_UNIX

        def server_bind(self) -> None:
            self.socket.bind(str(tmp_path / "engine"))

        def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
            return self.socket.accept()[0], ("local", 0)

    server = Server(("local", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        assert health.main([f"unix:{tmp_path}/engine"]) == 0
        assert capsys.readouterr().err == ""
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert health.main([f"unix:{tmp_path}/nobody"]) == 1
    assert "No such file" in capsys.readouterr().err
