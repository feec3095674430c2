"""Bundle for a further host: what it has to know of the first one, in one file of JSON. It is a secret."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.container.host_link import link
from deploy.container.host_proxies import checked_name

#: What has to be in it, by its place in the secrets folder; and what older versions do not write.
FILES = ("link/own.pem", "link/ca.pem", "services/redis_url", "gateway/redis_url", "deployer/registry_pull_key")
NEWER_FILES = ("link/server.pem",)
_LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """`first_host` is the address of its door; `files` are texts for the secrets folder.

    `name` is the further host's; `address` its own, at which the door gets archives, if it is to. Both may be empty.
    """

    first_host: str
    key_prefix: str
    files: Mapping[str, str] = field(repr=False)
    name: str = ""
    address: str = ""

    def text(self) -> str:
        """One line of JSON."""
        said = {"first_host": self.first_host, "key_prefix": self.key_prefix, "name": self.name}
        return json.dumps({**said, "address": self.address, "files": dict(self.files)})


def read_bundle(text: str) -> Bundle:
    """Raises ValueError for what is not whole, has something else in it, or has an address that is none."""
    if len(text) > _LARGEST:
        raise ValueError("it is too large")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ValueError("it is no JSON") from problem
    if not isinstance(found, dict) or set(found) - {"name", "address"} != {"first_host", "key_prefix", "files"}:
        raise ValueError("it has to have first_host, key_prefix and files")
    address, prefix, files = found["first_host"], found["key_prefix"], found["files"]
    name, own = found.get("name", ""), found.get("address", "")
    if not isinstance(files, dict) or set(files) - set(NEWER_FILES) != set(FILES):
        raise ValueError(f"its files have to be {', '.join(FILES)}")
    if not all(isinstance(one, str) and one for one in (address, prefix, *files.values())):
        raise ValueError("every part of it has to be a text")
    if not isinstance(name, str) or not isinstance(own, str):
        raise ValueError("its name and address have to be texts")
    if name:
        checked_name(name)
    if own:
        ipaddress.ip_address(own)
    link(address)
    return Bundle(first_host=address, key_prefix=prefix, files=files, name=name, address=own)
