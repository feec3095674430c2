"""Attacks on the pull side: the registry's other images, tags, lists, writes; other ranges' archives."""

from __future__ import annotations

import json
import time

from bench.attacks.register import Result, attack
from bench.attacks.stage import Stage
from deploy.machine.commands import MachineError

REGISTRY = "http://cyroid-registry:5000"
ZERO = "sha256:" + "0" * 64


def _asks(stage: Stage, path: str, *, method: str = "GET", token: str = "", url: str = REGISTRY) -> tuple[int, str]:
    """The status of one request from the range, and the beginning of the answer."""
    code = """
headers = {'Authorization': 'Bearer ' + VALUES['token']} if VALUES['token'] else {}
status, body = http(VALUES['url'], VALUES['method'], b'{}' if VALUES['method'] != 'GET' else None, headers)
print(json.dumps([status, body[:200].decode(errors='replace')]))"""
    said = stage.attack(code, url=url + path, method=method, token=token)
    status, body = json.loads(said.strip().splitlines()[-1])
    return int(status), str(body)


def _unless(allowed: set[int], answer: tuple[int, str]) -> Result:
    return Result(answer[0] not in allowed, f"{answer[0]} {answer[1][:150]}")


#: What a range was given for its last pull is used for so long; its token lasts longer.
_FRESH_SECONDS = 240.0
_PULLS: dict[str, tuple[float, dict[str, str]]] = {}


def own_pull(stage: Stage) -> dict[str, str]:
    """What the attacker was given for an image of its own: repository, digest, layer and token, out of its inbox."""
    return _pull(stage, stage.attacker)


def victims_image(stage: Stage) -> dict[str, str]:
    """The same of an image that only the victim was told to pull."""
    return _pull(stage, stage.victim)


def _pull(stage: Stage, range_id: str) -> dict[str, str]:
    known = _PULLS.get(range_id)
    if known is None or time.monotonic() - known[0] > _FRESH_SECONDS:
        stage.deploy(range_id, stage.image())
        known = _PULLS[range_id] = (time.monotonic(), _asked(stage, range_id))
    return known[1]


def _asked(stage: Stage, range_id: str) -> dict[str, str]:
    """The last command to pull in the range's inbox. Raises MachineError."""
    said = stage.redis("--json", "XREVRANGE", f"cyroid:range:{range_id}:inbox", "+", "-", "COUNT", "20")
    for _, flat in json.loads(said):
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if fields["type"] == "image.pull_requested.v1":
            data = json.loads(fields["data"])
            source, _, digest = data["source"].partition("@")
            layer, token = data["layers"][0]["digest"], data.get("registry_token") or ""
            return {"repository": source.partition("/")[2], "digest": digest, "token": token, "layer": layer}
    raise MachineError(f"{range_id} was asked for no pull")


@attack
def push_a_blob(stage: Stage) -> Result:
    """Begin an upload."""
    return _unless({401, 403, 405}, _asks(stage, "/v2/evil/blobs/uploads/", method="POST"))


@attack
def push_a_manifest(stage: Stage) -> Result:
    """Under a tag that others know."""
    return _unless({401, 403, 405}, _asks(stage, "/v2/evil/manifests/latest", method="PUT"))


@attack
def push_with_the_own_token(stage: Stage) -> Result:
    """A token for a pull, used to write into that repository."""
    own = own_pull(stage)
    answer = _asks(stage, f"/v2/{own['repository']}/manifests/latest", method="PUT", token=own["token"])
    return _unless({401, 403, 405}, answer)


@attack
def delete_a_manifest(stage: Stage) -> Result:
    """By digest, with the token that reads it."""
    own = own_pull(stage)
    answer = _asks(stage, f"/v2/{own['repository']}/manifests/{own['digest']}", method="DELETE", token=own["token"])
    return _unless({401, 403, 405}, answer)


@attack
def delete_a_blob(stage: Stage) -> Result:
    """A layer that others share."""
    own = own_pull(stage)
    answer = _asks(stage, f"/v2/{own['repository']}/blobs/{own['layer']}", method="DELETE", token=own["token"])
    return _unless({401, 403, 405}, answer)


@attack
def list_the_catalog(stage: Stage) -> Result:
    """With and without a token."""
    token = own_pull(stage)["token"]
    answers = [_asks(stage, "/v2/_catalog"), _asks(stage, "/v2/_catalog", token=token)]
    return Result(any(status == 200 for status, _ in answers), str(answers))


@attack
def list_the_tags(stage: Stage) -> Result:
    """Of the own repository too."""
    own = own_pull(stage)
    return _unless({401, 403, 404}, _asks(stage, f"/v2/{own['repository']}/tags/list", token=own["token"]))


@attack
def pull_by_tag(stage: Stage) -> Result:
    """A tag may name other content than was meant."""
    own = own_pull(stage)
    return _unless({401, 403, 404}, _asks(stage, f"/v2/{own['repository']}/manifests/latest", token=own["token"]))


@attack
def pull_anothers_image_without_a_token(stage: Stage) -> Result:
    """By the digest, which is known."""
    other = victims_image(stage)
    return _unless({401, 403}, _asks(stage, f"/v2/{other['repository']}/manifests/{other['digest']}"))


@attack
def pull_anothers_image_with_the_own_token(stage: Stage) -> Result:
    """A token for one repository is tried on another's manifest and layer."""
    own, other = own_pull(stage), victims_image(stage)
    paths = [
        f"/v2/{other['repository']}/manifests/{other['digest']}",
        f"/v2/{other['repository']}/blobs/{other['layer']}",
    ]
    answers = [_asks(stage, path, token=own["token"]) for path in paths]
    return Result(own["repository"] == other["repository"] or any(status == 200 for status, _ in answers), str(answers))


@attack
def pull_with_docker_by_name(stage: Stage) -> Result:
    """As a student would: `docker pull` of the victim's image by name and by digest."""
    other = victims_image(stage)
    name = f"cyroid-registry:5000/{other['repository']}"
    done = stage.shell(f"docker pull {name}:latest; docker pull {name}@{other['digest']}; docker image ls -q {name}")
    return Result(
        bool(done.stdout.split()[-1:] and b"sha256" in done.stdout), (done.stdout + done.stderr).decode()[-300:]
    )


@attack
def change_a_token(stage: Stage) -> Result:
    """Another repository, a later end, no signature, `none` and other algorithms under the old signature."""
    own, other = own_pull(stage), victims_image(stage)
    code = """
import base64
def text(part): return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b'=').decode()
head, claims, signature = (VALUES['token'] + '..').split('.')[:3]
mine = {'repository': VALUES['other'], 'exp': 2**31 - 1}
made = [head + '.' + text(mine) + '.' + signature, head + '.' + text(mine) + '.', text({'alg': 'none'}) + '.' + text(mine) + '.']
made += [text({'alg': kind}) + '.' + text(mine) + '.' + signature for kind in ('HS384', 'RS256', 'ES256')]
path = 'http://cyroid-registry:5000/v2/' + VALUES['other'] + '/manifests/' + VALUES['digest']
print(json.dumps([http(path, headers={'Authorization': 'Bearer ' + one})[0] for one in made]))"""
    said = stage.attack(code, token=own["token"], other=other["repository"], digest=other["digest"])
    return Result("200" in said, said.strip()[-300:])


@attack
def paths_that_mean_another(stage: Stage) -> Result:
    """Dots, double slashes, escapes: the proxy and the registry must not read one path in two ways."""
    own, other = own_pull(stage), victims_image(stage)
    tail = f"{other['repository']}/manifests/{other['digest']}"
    up = "/".join([".."] * (own["repository"].count("/") + 1))
    paths = [
        f"/v2/{own['repository']}/{up}/{tail}",
        f"/v2//{tail}",
        f"/v2/{own['repository']}/%2e%2e/{tail}",
        f"/v2/{own['repository']}%2f..%2f{tail}",
        f"/v2/{tail}?x=/v2/{own['repository']}/",
    ]
    answers = [_asks(stage, path, token=own["token"])[0] for path in paths]
    return Result(200 in answers, str(answers))


@attack
def two_requests_in_one(stage: Stage) -> Result:
    """Content-Length and Transfer-Encoding that disagree: a second request would pass the proxy unseen."""
    code = r"""
inner = b'GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n'
found = []
for head in (b'Content-Length: 4\r\nTransfer-Encoding: chunked', b'Transfer-Encoding: xchunked\r\nContent-Length: %d' % len(inner), b'Content-Length: %d\r\nContent-Length: 0' % len(inner)):
    one = socket.create_connection(('cyroid-registry', 5000), timeout=5)
    one.sendall(b'GET /v2/ HTTP/1.1\r\nHost: x\r\n' + head + b'\r\n\r\n0\r\n\r\n' + inner)
    data = b''
    try:
        while True:
            part = one.recv(65536)
            if not part: break
            data += part
    except OSError: pass
    found.append(data.count(b'repositories'))
print(json.dumps(found))"""
    said = stage.attack(code)
    return Result(said.strip().splitlines()[-1] != "[0, 0, 0]", said.strip()[-300:])


@attack
def fetch_an_archive_without_a_token(stage: Stage) -> Result:
    """Any name, no token, a guessed one."""
    code = """
answers = [http('http://cyroid-tar:7070/' + path, headers=head)[0] for path in ('', 'tar/x', 'transfers/x', '../etc/passwd') for head in ({}, {'Authorization': 'Bearer ' + 'x' * 43})]
print(json.dumps(answers))"""
    said = stage.attack(code)
    return Result("200" in said or "500" in said, said.strip()[-200:])


@attack
def use_anothers_offer(stage: Stage) -> Result:
    """The path of a transfer of the victim's, with a token that was the attacker's."""
    name = f"offer-{time.time_ns()}"
    stage.deploy(stage.victim, stage.image(), name=name, seconds=0.0)
    code = """
answers = []
for tail in ('.0.1', '-0-1', '.0', ''):
    for path in ('transfers/', 'tar/', 'archives/', ''):
        answers.append(http('http://cyroid-tar:7070/' + path + VALUES['name'] + tail, headers={'Authorization': 'Bearer x'})[0])
print(json.dumps(sorted(set(answers))))"""
    said = stage.attack(code, name=name)
    return Result("200" in said, said.strip()[-200:])
