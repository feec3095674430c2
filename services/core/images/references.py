"""Image references as people write them, normalised, and where each lives in this project's registry.

The rules are those of `distribution/reference` (regexp.go, normalize.go):

    reference  := name [ ":" tag ] [ "@" digest ]
    name       := [ domain "/" ] path
    domain     := host [ ":" port ] | "[" IPv6 "]" [ ":" port ]
    path       := component { "/" component }
    component  := [a-z0-9]+ { ( "." | "_" | "__" | "-"+ ) [a-z0-9]+ }

The part before the first slash is a domain only if it holds a dot or a colon, or is `localhost`; otherwise the domain
is `docker.io`, whose one-word paths live under `library/`. One rule is older than the newest engines': a first part in
upper case without dot or colon (`MyOrg/app`) is refused; 20.10 refuses it too, later ones take it for a host, which
nobody means.

**One registry for all names.** `repository` maps (domain, path) into one registry's name space so that two names never
meet: `docker.io` is left out, a port's colon becomes `_` (`host:5000/x` → `host_5000/x`). A host may hold capitals and
an IPv6 address may hold colons, both impossible in a repository's name; `_encode_domain` says how they are written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from services.errors import BadReference

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255
TAG_LIMIT = 128

_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?P<host>{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::(?P<port>[0-9]+))?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DIGEST_TAG = re.compile(r"sha256-([0-9a-f]{64})")
_BARE_ID = re.compile(r"[0-9a-f]{64}")
#: A first component that a domain could have become; `docker.io` is not left out before such a one.
_DOMAIN_LIKE = re.compile(r"localhost|.*\..*|.*_[0-9]+|.*__.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A normalised image reference. At least one of `tag` and `digest` is set; `str()` is the form on the wire."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From what a person or an engine wrote. Raises BadReference with the part that is wrong."""
        name, at, digest = text.partition("@")
        if at and not _DIGEST.fullmatch(digest):
            raise _bad(text, f"the digest {digest!r} is not 'sha256:' and 64 lower-case hex digits")
        name, tag = _split_tag(name)
        if tag is not None:
            _check_tag(text, tag)
        elif not at:
            if _BARE_ID.fullmatch(name):
                raise _bad(text, "it is an image id, which has no name; give the image a tag first")
            tag = DEFAULT_TAG
        domain, path = _split_domain(text, name)
        return cls(domain=domain, path=path, tag=tag, digest=digest or None)

    @classmethod
    def from_registry(cls, repository: str, tag: str) -> Self | None:
        """The reference that lives under this repository and tag, None for a repository that no reference maps to."""
        first, slash, rest = repository.partition("/")
        name = repository
        if slash and _DOMAIN_LIKE.fullmatch(first):
            domain = _decode_domain(first)
            if domain is None:
                return None
            name = f"{domain}/{rest}"
        suffix = f"@sha256:{match[1]}" if (match := _DIGEST_TAG.fullmatch(tag)) else f":{tag}"
        try:
            reference = cls.parse(f"{name}{suffix}")
        except BadReference:
            return None
        return reference if reference.repository == repository else None

    @property
    def name(self) -> str:
        """`docker.io/library/nginx`, without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """The shortest form that parses to the same: `nginx:1.27`."""
        name = self.name
        if self.domain == DOCKER_HUB:
            first, _, rest = self.path.partition("/")
            if not _is_domain(first):
                name = rest if first == "library" and "/" not in rest else self.path
        return name + self._suffix

    @property
    def repository(self) -> str:
        """The repository in this project's registry. Different names have different repositories.

        Raises BadReference where a long IPv6 or capital host makes it exceed 255 characters.
        """
        first = self.path.partition("/")[0]
        if self.domain == DOCKER_HUB and not _DOMAIN_LIKE.fullmatch(first):
            return self.path
        repository = f"{_encode_domain(self.domain)}/{self.path}"
        if len(repository) > NAME_LIMIT:
            raise _bad(str(self), f"its name in the registry would be longer than {NAME_LIMIT} characters")
        return repository

    @property
    def registry_tag(self) -> str:
        """The tag in this project's registry. A digest gives `sha256-<64 hex>`: full, so that nothing can collide.

        A digest outranks the tag beside it, as engines have it: `nginx:1@sha256:…` must never overwrite `nginx:1`.
        """
        if self.digest is not None:
            return self.digest.replace(":", "-")
        return self.tag or DEFAULT_TAG

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix


def _bad(text: str, why: str) -> BadReference:
    return BadReference(f"{text!r} is no image reference: {why}")


def _split_tag(name: str) -> tuple[str, str | None]:
    """A colon after the last slash begins the tag; one before it belongs to the host's port."""
    head, colon, tail = name.rpartition(":")
    if not colon or "/" in tail or tail.endswith("]"):
        return name, None
    return head, tail


def _check_tag(text: str, tag: str) -> None:
    if len(tag) > TAG_LIMIT:
        raise _bad(text, f"the tag has {len(tag)} characters, at most {TAG_LIMIT} are allowed")
    if not _TAG.fullmatch(tag):
        raise _bad(text, f"the tag {tag!r} may hold letters, digits, '_', '.' and '-', and not begin with '.' or '-'")


def _is_domain(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost"


def _split_domain(text: str, name: str) -> tuple[str, str]:
    """Domain and path of a name, by the rule of normalize.go's splitDockerDomain."""
    domain, slash, path = name.partition("/")
    if not slash or not _is_domain(domain):
        domain, path = DOCKER_HUB, name
    if domain == "index.docker.io":
        domain = DOCKER_HUB
    if domain == DOCKER_HUB and path and "/" not in path:
        path = f"library/{path}"
    if not _DOMAIN.fullmatch(domain):
        raise _bad(text, f"{domain!r} is no host name with an optional ':port'")
    if path != path.lower():
        raise _bad(text, f"the repository name {path.removeprefix('library/')!r} must be lower case")
    if not _PATH.fullmatch(path):
        raise _bad(
            text,
            f"the repository name {path.removeprefix('library/')!r} may hold lower-case letters and digits, with single"
            " '.', '_', '__' or '-' between them, and '/' between parts",
        )
    if len(domain) + 1 + len(path) > NAME_LIMIT:
        raise _bad(text, f"its name is longer than {NAME_LIMIT} characters")
    return domain, path


def _encode_domain(domain: str) -> str:
    """A domain as one path component: `host_5000`; capitals as `host.example__5`; `[::1]:5000` as `x--1x_5000__v6`.

    A domain holds no `_`, so the parts after it are unmistakable. The suffix is `v6` for an address and a bit mask, in
    hex, of the places where the domain has a capital.
    """
    host, port = _domain_parts(domain)
    capitals = sum(1 << place for place, letter in enumerate(host) if letter.isupper())
    suffix = f"{capitals:x}" if capitals else ""
    if host.startswith("["):
        host = f"x{host[1:-1].replace(':', '-')}x"
        suffix = f"v6{suffix}"
    return host.lower() + (f"_{port}" if port else "") + (f"__{suffix}" if suffix else "")


def _domain_parts(domain: str) -> tuple[str, str | None]:
    match = _DOMAIN.fullmatch(domain)
    if match is None:
        raise BadReference(f"{domain!r} is no host name with an optional ':port'")
    return match["host"], match["port"]


_ENCODED = re.compile(r"(?P<host>[a-z0-9.-]+)(?:_(?P<port>[0-9]+))?(?:__(?P<v6>v6)?(?P<capitals>[0-9a-f]*))?")


def _decode_domain(component: str) -> str | None:
    """The domain that `_encode_domain` wrote so, None where it cannot have; the caller encodes again to compare."""
    match = _ENCODED.fullmatch(component)
    if match is None:
        return None
    host = match["host"]
    if match["v6"]:
        host = f"[{host[1:-1].replace('-', ':')}]"
    if match["capitals"]:
        mask = int(match["capitals"], 16)
        host = "".join(letter.upper() if mask >> place & 1 else letter for place, letter in enumerate(host))
    return host + (f":{match['port']}" if match["port"] else "")
