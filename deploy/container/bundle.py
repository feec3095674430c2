"""Bundle for a further host: what it has to know of the first one, in one file of JSON. It is a secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.container.host_link import link

#: What may be in it, by its place in the secrets folder.
FILES = ("link/own.pem", "link/ca.pem", "services/redis_url", "gateway/redis_url", "deployer/registry_pull_key")
_LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """`first_host` is the address of its door; `files` are texts for the secrets folder."""

    first_host: str
    key_prefix: str
    files: Mapping[str, str] = field(repr=False)

    def text(self) -> str:
        """One line of JSON."""
        return json.dumps({"first_host": self.first_host, "key_prefix": self.key_prefix, "files": dict(self.files)})


def read_bundle(text: str) -> Bundle:
    """Raises ValueError for what is not whole, has something else in it, or has an address that is none."""
    if len(text) > _LARGEST:
        raise ValueError("it is too large")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ValueError("it is no JSON") from problem
    if not isinstance(found, dict) or set(found) != {"first_host", "key_prefix", "files"}:
        raise ValueError("it has to have first_host, key_prefix and files")
    address, prefix, files = found["first_host"], found["key_prefix"], found["files"]
    if not isinstance(files, dict) or set(files) != set(FILES):
        raise ValueError(f"its files have to be {', '.join(FILES)}")
    if not all(isinstance(one, str) and one for one in (address, prefix, *files.values())):
        raise ValueError("every part of it has to be a text")
    link(address)
    return Bundle(first_host=address, key_prefix=prefix, files=files)
