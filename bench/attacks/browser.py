"""Attacks on the HTTP API: a browser that visits a hostile page (CSRF, DNS rebinding), and slow clients."""

from __future__ import annotations

import json

from bench.attacks.register import Result, attack
from bench.attacks.stage import Stage


def _ask(stage: Stage, method: str, path: str, headers: dict[str, str], data: bytes | None = None) -> int:
    """The status of one request to the API from the host's side (from a container on cyroid-mgmt)."""
    code = """
import http.client, json, sys
given = json.loads(sys.stdin.read())
one = http.client.HTTPConnection('172.30.0.23', 8070, timeout=30)
one.putrequest(given['method'], given['path'], skip_host=True)
for name, value in given['headers'].items():
    one.putheader(name, value)
one.endheaders(given['data'].encode('latin-1') if given['data'] is not None else None)
print(one.getresponse().status)"""
    given = {
        "method": method,
        "path": path,
        "headers": headers,
        "data": None if data is None else data.decode("latin-1"),
    }
    said = stage.docker(
        *("exec", "-i", "cyroid-images-tracker-1", "python", "-c", code), stdin=json.dumps(given).encode()
    )
    return int(said.split()[-1])


def _order(stage: Stage) -> bytes:
    return json.dumps({"range_id": stage.victim, "images": ["csrf:1"]}).encode()


def _post(stage: Stage, headers: dict[str, str]) -> Result:
    body = _order(stage)
    status = _ask(stage, "POST", "/api/v1/deployments", {"Content-Length": str(len(body)), **headers}, body)
    return Result(status < 400, str(status))


@attack
def a_page_that_posts_as_plain_text(stage: Stage) -> Result:
    """A browser sends such a request to another origin without asking first."""
    return _post(stage, {"Host": "127.0.0.1:8070", "Origin": "http://evil.example", "Content-Type": "text/plain"})


@attack
def a_page_that_posts_a_form(stage: Stage) -> Result:
    """As above."""
    kind = "application/x-www-form-urlencoded"
    return _post(stage, {"Host": "127.0.0.1:8070", "Origin": "http://evil.example", "Content-Type": kind})


@attack
def a_page_that_posts_json(stage: Stage) -> Result:
    """With the right type, from a foreign origin."""
    return _post(stage, {"Host": "127.0.0.1:8070", "Origin": "http://evil.example", "Content-Type": "application/json"})


@attack
def a_name_that_is_bound_anew(stage: Stage) -> Result:
    """DNS rebinding: the page's own name leads to this host, and the browser thinks it the same origin."""
    headers = {"Host": "evil.example:8070"}
    answers = [_ask(stage, "GET", "/api/v1/ranges", headers), _ask(stage, "DELETE", "/api/v1/ranges/nobody", headers)]
    return Result(any(status < 400 or status in (404, 409) for status in answers), str(answers))


@attack
def a_body_that_comes_a_byte_at_a_time(stage: Stage) -> Result:
    """The connection is ended; others are answered meanwhile."""
    code = """
import socket, time
one = socket.create_connection(('172.30.0.23', 8070), timeout=60)
one.sendall(b'POST /api/v1/deployments HTTP/1.1\\r\\nHost: 127.0.0.1:8070\\r\\nContent-Type: application/json\\r\\nContent-Length: 5000\\r\\n\\r\\n')
begun = time.monotonic()
try:
    while time.monotonic() - begun < 45:
        one.sendall(b'[')
        one.settimeout(0.5)
        try:
            data = one.recv(1000)
            print('cut', data[:20]); break
        except TimeoutError:
            time.sleep(0.5)
    else:
        print('held')
except OSError:
    print('cut')"""
    said = stage.docker("exec", "-i", "cyroid-images-tracker-1", "python", "-c", code)
    return Result("cut" not in said, said)


@attack
def half_requests_to_the_api(stage: Stage) -> Result:
    """500 of them from one address: whoever comes from another is answered all the same."""
    hold = """
import socket, sys
held = []
for _ in range(500):
    try:
        one = socket.create_connection(('172.30.0.23', 8070), timeout=2)
        one.sendall(b'GET / HTTP/1.1\\r\\nX: ')
        held.append(one)
    except OSError:
        pass
print('held', flush=True)
sys.stdin.read()"""
    ask = """
import urllib.request
print(urllib.request.urlopen('http://172.30.0.23:8070/livez', timeout=20).status)"""
    command = ["docker", "exec", "-i", "cyroid-images-tracker-1", "python", "-c", hold]
    with stage.started(*command) as holding:
        assert holding.stdout is not None
        holding.stdout.readline()
        done = stage.run("docker", "exec", "cyroid-images-deployer-1", "python", "-c", ask)
        holding.communicate(b"")
    return Result(b"200" not in done.stdout, (done.stdout + done.stderr).decode()[-200:])
