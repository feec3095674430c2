"""HAProxy's configuration: what stands between the roles and the socket of the host's engine.

Who may use the engine's socket is root on the host: a container that mounts the host's folders is one request away. So
the proxy alone holds it. Every role has a socket of its own, in a folder that no other role mounts, and gets through it
the calls that its code makes; everything else is answered 403 in the engine's own form and goes no further.

    tar-server              look at images, and save them
    tracker                 look at images
    registry-pusher         look, save; push and pull under the registry's own name; load, tag, untag
    ingest, api             look, save; build, import, load, commit, tag, untag

A call is its method, its path and, where it changes something, every word of its query: a name that is written
otherwise than our client writes it (encoded, doubled, with dots, with a host before it) is no call that is known. What
the engine would also read from a form in the body is refused with the form. Only a build session may switch protocols:
through an upgrade to HTTP/2 anything could be asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

ENGINE = "/var/run/docker.sock"
FOLDER = "/run/engine"
SOCKET = "engine.sock"
#: As the engine's push names images of the registry.
REGISTRY = "cyroid-registry:5000"
#: Build arguments and labels stand in the request's first line.
LINE_BYTES = 64 << 10

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._:@/-]|%5[BDbd])*"
_VALUE = "[^&;]*"
_YES_NO = "(?:0|1|[Tt]rue|[Ff]alse)"
_NO = "(?:0|[Ff]alse)"
_IN_QUERY = REGISTRY.replace(":", "(?::|%3[Aa])") + "(?:/|%2[Ff])"


@dataclass(frozen=True, slots=True)
class Call:
    """One of the engine's. `query` has a pattern for each word's value; None: a call that changes nothing.

    bare: it may come without a query as well.
    """

    methods: tuple[str, ...]
    path: str
    query: tuple[tuple[str, str], ...] | None = None
    bare: bool = False


LOOK = (
    Call(("GET", "HEAD"), "/_ping"),
    Call(("GET",), f"/(?:version|info|images/json|images/{_NAME}/json)"),
)
SAVE = (Call(("GET",), "/images/get"),)
LOAD = Call(("POST",), "/images/load", (("quiet", _YES_NO),))
TAG = Call(("POST",), f"/images/{_NAME}/tag", (("repo", _VALUE), ("tag", _VALUE)))
#: Never by force: what a container uses stays.
UNTAG = Call(("DELETE",), f"/images/{_NAME}", (("force", _NO), ("noprune", _YES_NO)), bare=True)
#: Copies that the registry has may be freed, and come back from there and from nowhere else.
PUSH = (
    Call(("POST",), f"/images/{REGISTRY}/{_NAME}/push", (("tag", _VALUE),)),
    Call(("POST",), "/images/create", (("fromImage", f"{_IN_QUERY}{_VALUE}"), ("tag", _VALUE))),
    LOAD,
    TAG,
    UNTAG,
)
#: Steps of a build run in a container without rights over the host, on the engine's bridge or on no network.
INGEST = (
    Call(
        ("POST",),
        "/build",
        (
            ("networkmode", "(?:default|none)"),
            *(
                (word, _VALUE)
                for word in (
                    *("t", "dockerfile", "rm", "forcerm", "pull", "nocache", "buildargs", "labels", "cachefrom"),
                    *("target", "platform", "version", "buildid", "session"),
                )
            ),
        ),
    ),
    Call(("POST",), "/build/cancel", (("id", _VALUE),)),
    Call(("POST",), "/build/prune", (("all", _YES_NO),)),
    Call(("GET",), "/networks/bridge"),
    LOAD,
    Call(("POST",), "/images/create", (("fromSrc", "-"), ("repo", _VALUE), ("tag", _VALUE))),
    Call(
        ("POST",),
        "/commit",
        tuple((word, _VALUE) for word in ("container", "repo", "tag", "comment", "author", "changes", "pause")),
    ),
    TAG,
    UNTAG,
)
SESSION = "/session"

#: Who may what. A role's folder under `FOLDER` has its name.
RIGHTS: dict[str, tuple[Call, ...]] = {
    "api": (*LOOK, *SAVE, *INGEST),
    "tracker": LOOK,
    "tar-server": (*LOOK, *SAVE),
    "registry-pusher": (*LOOK, *SAVE, *PUSH),
    "ingest": (*LOOK, *SAVE, *INGEST),
}
#: Who may open build sessions.
SESSIONS = frozenset({"ingest"})

_GLOBAL = f"""\
global
  maxconn 512
  tune.bufsize {LINE_BYTES}
  log stdout format raw local0 notice

defaults
  mode http
  log global
  log-format "%ft refused or failed: %HM %HPO, status %ST"
  option dontlognull
  option dontlog-normal
  option http-server-close
  option abortonclose
  option http-no-delay
  option disable-h2-upgrade
  timeout connect 5s
  timeout http-request 30s
  timeout client 3600s
  timeout server 3600s
  timeout tunnel 3600s
"""
_FAILED = {
    400: "the request is not one that HTTP knows",
    408: "the request did not come in time",
    500: "the proxy failed",
    502: "the engine broke off before it answered",
    503: "the engine does not answer",
    504: "the engine did not answer in time",
}
_REFUSED = (
    "this socket does not allow the call (docs/security.md);"
    " images are built, imported and promoted in cyroid-images-ingest-1"
)


def configuration(*, engine: str = ENGINE, folder: str = FOLDER) -> str:
    """The whole `haproxy.cfg`: a frontend for each role, and the engine behind them."""
    errors = "".join(
        f"  http-error status {status} content-type application/json string '{_said(text)}'\n"
        for status, text in _FAILED.items()
    )
    fronts = "".join(_frontend(role, calls, folder) for role, calls in RIGHTS.items())
    return f"{_GLOBAL}{errors}{fronts}\nbackend engine\n  server engine unix@{engine}\n"


def _frontend(role: str, calls: tuple[Call, ...], folder: str) -> str:
    deny = f"http-request deny deny_status 403 content-type application/json string '{_said(_REFUSED)}'"
    sessions = role in SESSIONS
    lines = [
        # Every role runs as a user of its own choice; who reaches the socket is who mounts its folder.
        f"bind unix@{folder}/{role}/{SOCKET} mode 666",
        *(
            f"http-request set-var(txn.known) bool(true) if {conditions}"
            for call in calls
            for conditions in _conditions(call)
        ),
        *([f"http-request set-var(txn.session) bool(true) if {{ method POST }} {_path(SESSION)}"] if sessions else []),
        f"{deny} unless {{ var(txn.known) -m bool }}{' or { var(txn.session) -m bool }' if sessions else ''}",
        f"{deny} unless {{ url_beg / }}",
        f"{deny} if {{ path -m sub .. }} or {{ path -m sub // }} or {{ path -m sub /./ }}",
        f"{deny} if {{ req.hdr(content-type) -m sub -i form }} or {{ req.hdr(http2-settings) -m found }}",
        f"{deny} if {{ req.hdr(upgrade) -m found }}{' !{ var(txn.session) -m bool }' if sessions else ''}",
        "default_backend engine",
    ]
    return f"\nfrontend {role}\n" + "".join(f"  {line}\n" for line in lines)


def _conditions(call: Call) -> Iterator[str]:
    """Each of them suffices."""
    asked = f"{{ method {' '.join(call.methods)} }} {_path(call.path)}"
    if call.query is None:
        yield asked
        return
    if call.bare:
        yield f"{asked} !{{ query -m found }}"
    words = "|".join(f"{word}={value}" for word, value in call.query)
    yield f"{asked} {{ query -m reg '^(?:(?:{words})(?:&|$))*+$' }}"


def _path(pattern: str) -> str:
    return rf"{{ path -m reg '^(?:/v1\.[0-9]{{1,3}})?{pattern}$' }}"


def _said(text: str) -> str:
    return f'{{"message":"engine-proxy: {text}"}}'
