"""Image as an engine or a registry has it: identity, layers, platform.

An image's **identity** is its config digest (`image_id`). A classic engine reports it as `.Id`; an engine on the
containerd store reports the manifest's digest there, so across engines either the config digest or the list of diff
IDs is compared, never `.Id` (OCI image-spec, config.md: `rootfs.diff_ids` is part of the config, so equal config
digests imply equal diff IDs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Store = Literal["classic", "containerd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineImage:
    """An image as one engine has it.

    local_id    what this engine calls it in its own API (config digest, or manifest digest on a containerd store)
    image_id    config digest, None where this engine cannot tell
    diff_ids    uncompressed layer digests, base first
    references  its tags, as normalised references
    repo_digests   names by digest (`repository@sha256:…`) that a pull or push left; `untag` takes them too
    raw_layers  diff IDs of layers that a containerd store surely has uncompressed, for this image
    """

    local_id: str
    image_id: str | None
    diff_ids: tuple[str, ...]
    references: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    size_bytes: int = 0
    platform: str = "linux/amd64"
    raw_layers: tuple[str, ...] = ()

    def is_content(self, image_id: str, diff_ids: tuple[str, ...]) -> bool:
        """Whether this is the wanted content. Diff IDs decide only where the engine does not know the config digest."""
        if self.image_id is not None:
            return self.image_id == image_id
        return bool(diff_ids) and self.diff_ids == diff_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine says of itself. `engine_id` changes when its data is gone (a range recreated empty).

    `root` is its data folder as the engine sees it; `driver` is the classic store's graph driver or the snapshotter.
    `proxy` and `no_proxy` are its HTTP_PROXY and NO_PROXY. `live_restore`: its containers run on while it restarts.
    `name` is its machine's host name, which a process in a container does not see.
    """

    engine_id: str
    version: str
    api_version: str
    store: Store
    platform: str
    root: str
    driver: str = "overlay2"
    proxy: str = ""
    no_proxy: str = ""
    live_restore: bool = False
    name: str = ""
