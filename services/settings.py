"""Settings of all services: one structure, read from `CYROID_*` variables by `services.runtime.environment`.

A field's variable is `CYROID_` and its name in capitals: `redis_url` is `CYROID_REDIS_URL`. Units are in the names.
The sentence under a field is its documentation; `cyroid-images settings` prints it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from services.core.ranges.engine_networks import networks_of
from services.core.registry_place import RegistryPlace
from services.core.secrets import shown
from services.core.setting_types import (
    Bytes,
    Count,
    EngineUrl,
    FrameAncestors,
    HostId,
    HostNames,
    HostPort,
    HostPortOrNothing,
    HttpUrl,
    KeyPrefix,
    Networks,
    RangeId,
    RedisUrl,
    RegistryAddress,
    RoleMap,
    Seconds,
    Secret,
)
from services.errors import BadInput


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. Values are checked before anything starts."""

    # ---- Redis ------------------------------------------------------------------------------------------------

    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    """Where the bus lives, also by _FILE: `redis://[user:password@]host:port/db`, `rediss://`, `unix://`, through
    Sentinel (docs/redis.md) `redis+sentinel://[user:password@]host:port,host:port/MASTER/db`, in a cluster
    `redis+cluster://host:port` (prefix in braces), for a range's agent `gateway://RANGE:SECRET@host:port`."""

    confirm_replicas: Annotated[int, Meta(ge=0, le=8, description="a whole number from 0 to 8")] = 0
    """How many replicas of Redis must have a commit before it counts as made (docs/redis.md). 0: none is asked."""

    key_prefix: KeyPrefix = "cyroid"
    """What every key begins with. `{cyroid}` puts all keys into one slot of a Redis Cluster."""

    lease_seconds: Annotated[float, Meta(ge=3, le=600, description="a number of seconds from 3 to 600")] = 30.0
    """How long a worker may be silent before another one takes over what it was doing."""

    entry_limit_bytes: Annotated[int, Meta(ge=4096, description="a number of bytes from 4096")] = 1024 * 1024
    """The largest entry that is read or written; anything larger is a dead letter."""

    # ---- the host's engine ------------------------------------------------------------------------------------

    host_engine_url: EngineUrl = "unix:///var/run/docker.sock"
    """The engine on which images are built, imported and promoted."""

    host_id: HostId = ""
    """The id of this host, the same for all its roles and ranges. Empty: the engine's id (docs/hosts.md)."""

    data_folder: str = ""
    """Where this host's id is kept, so that it stays the same when its engine is made anew. Empty: nowhere."""

    engine_root: str = ""
    """Where the host engine's data root (`/var/lib/docker`) can be read. Empty: layers come out of slower saves."""

    import_limit_bytes: Bytes = 128 * 1024**3
    """The most that the layers of one imported archive may take when they are unpacked; a larger one is refused."""

    build_context_limit_bytes: Bytes = 64 * 1024**3
    """The most that the context of one build may have, as it is sent; a larger one is refused."""

    exports_limit: Count = 2
    """How many tar exports the host's engine does at a time."""

    # ---- the registry -----------------------------------------------------------------------------------------

    registry_url: HttpUrl = "http://127.0.0.1:5000"
    """The registry as this side reaches it, for writing: `http://[user:password@]host:port`, without a path."""

    registry_auth: Literal["none", "token"] = "none"
    """How ranges pull: `token` with one for its repository for each pull, `none` without, where all may read all."""

    registry_pull_key: Secret = ""
    """What pull tokens are signed with (letters and digits); the proxy has the same. Also by _FILE."""

    registry_address: RegistryAddress = "127.0.0.1:5000"
    """The registry as ranges reach it: what their engines pull from."""

    registry_storage: str = ""
    """The registry's storage folder where it is mounted: for `collector`, `layer-mounter`, and to see its size."""

    registry_write_storage: str = ""
    """The registry's storage folder, for the `registry-pusher` to write layers to. Empty: they are sent over HTTP."""

    collect_by_api: bool = False
    """The registry's storage is no folder of this host (S3): the collector deletes and counts through the API alone."""

    collect_seconds: Annotated[float, Meta(ge=0, description="a number of seconds from 0")] = 6 * 3600.0
    """How often retention rules are applied and unreferenced content is collected. 0: only when somebody asks."""

    collect_grace_seconds: Annotated[float, Meta(ge=60, description="a number of seconds from 60")] = 86400.0
    """How long content stays after its last reference ended before a collection may set it aside."""

    collect_keep_seconds: Annotated[float, Meta(ge=600, description="a number of seconds from 600")] = 86400.0
    """How long content that a collection set aside can still be brought back, before its bytes are freed."""

    store_free_percent: Annotated[float, Meta(ge=0, le=90, description="a number from 0 to 90")] = 5.0
    """With less of the registry's, or of the host engine's, disk free, in percent, there is an alarm. 0: never."""

    scrub_bytes_per_second: Bytes = 100 * 1024**2
    """How fast a scrub reads the registry's storage. 0: as fast as the disk gives it."""

    registry_username: str = ""
    """Who we are to a registry that asks (HTTP basic). Empty: nobody asks."""

    registry_password: Secret = ""
    """The password to `registry_username`; also by _FILE."""

    registry_token: Secret = ""
    """A bearer token for the registry, instead of name and password; also by _FILE."""

    registry_token_service: Annotated[str, Meta(pattern=r"^[^\s/@]*$", description="HOST or HOST:PORT")] = ""
    """The host of the registry's token service, if that is not the registry's own: our password is sent there."""

    auto_push: bool = True
    """Whether an image that came with `push: auto` goes into the registry, where `registry auto-push` says nothing."""

    layer_codec: Literal["raw", "zstd", "auto"] = "raw"
    """How layers are stored in the registry: `raw`, or `zstd` (every range's engine must be 23 or newer), or `auto`:
    zstd for layers that shrink well once every range that is known can read it. A layer keeps its codec for ever."""

    parallel_layers: Count = 3
    """How many layers of one image are sent to the registry at a time."""

    pushes_limit: Count = 2
    """How many images are pushed at a time."""

    # ---- deployments ------------------------------------------------------------------------------------------

    pulls_per_range_limit: Count = 3
    """How many images one range pulls at a time."""

    extractions_limit: Count = 4
    """How many images the ranges of each host unpack at a time, over all ranges. On two cores 2 to 6 were alike."""

    large_image_bytes: Bytes = 2 * 1024**3
    """An image from this size on counts as large: large ones leave one of `extractions_limit` to smaller ones."""

    stall_seconds: Seconds = 60.0
    """How long a transfer may stand still, not one byte, before it counts as broken and the next path is tried."""

    agent_grace_seconds: Annotated[float, Meta(ge=0, description="a number of seconds from 0")] = 60.0
    """How long a deployment waits for a range whose agent is not there, before it fails."""

    push_wait_seconds: Seconds = 60.0
    """How long a deployment waits for a push that reports no progress, before it goes by tar."""

    signature_keys: str = ""
    """Public keys (PEM file or folder) by one of which images must be signed (docs/signatures.md). Empty: by none."""

    # ---- mounted layers ---------------------------------------------------------------------------------------

    layer_folder: str = "/var/lib/cyroid-layers"
    """Where the layer-mounter mounts; a range's container has `ranges/ID` bound at its `shown_layers`, `rslave`."""

    mkfs_erofs: str = "mkfs.erofs"
    """The program of erofs-utils 1.8 or newer that makes the indexes of layers (role `layer-mounter` only)."""

    mount_compressed: bool = True
    """Whether layers that the registry has compressed are mounted as well: the `layer-mounter` unpacks each once."""

    unpacked_limit_bytes: Bytes = 10 * 1024**3
    """The most that unpacked layers take which no range is shown: the last used are kept (role `layer-mounter`)."""

    shown_layers: str = ""
    """Where the host shows mounted layers to this range (role `agent` only). Empty: layers are always pulled."""

    containerd_socket: str = "/var/run/docker/containerd/containerd.sock"
    """The containerd of the range's engine, for mounted layers on its image store (role `agent` only)."""

    mount_restart: Literal["never", "idle", "always"] = "idle"
    """Restart of an engine on the classic store for mounted layers; `idle`: when nobody else is connected (`agent`)."""

    # ---- tar fallback -----------------------------------------------------------------------------------------

    tar_listen: HostPort = "127.0.0.1:7070"
    """Where the tar server listens."""

    tar_url: HttpUrl = "http://127.0.0.1:7070"
    """The tar server as ranges reach it."""

    upload_listen: HostPortOrNothing = ""
    """Where the agent pool listens while a range's agent sends it an image. Empty: such ranges are never asked."""

    upload_url: HttpUrl = "http://127.0.0.1:7072"
    """The agent pool as ranges reach it, for images that only they have whole (docs/registry-storage.md)."""

    spool_folder: str = "/var/tmp/cyroid-spool"
    """Where an export lies while ranges read it; emptied by itself."""

    spool_limit_bytes: Bytes = 64 * 1024**3
    """How much the spool may take; above it a further export waits."""

    # ---- a range's agent, and the gateway between agents and Redis --------------------------------------------

    range_id: RangeId = ""
    """Which range the agent belongs to (role `agent` only)."""

    engine_url: EngineUrl = "unix:///var/run/docker.sock"
    """The range's engine, as its agent reaches it (role `agent` only)."""

    beat_seconds: Seconds = 5.0
    """How often an agent sends a heartbeat; it counts as gone after three beats missed."""

    gateway_listen: HostPort = "127.0.0.1:7071"
    """Where the range gateway listens: the agents of ranges connect to it instead of Redis."""

    gateway_secrets: str = ""
    """A folder with a file named for each range: its secret's SHA-256 in hexadecimal. Read at each connection."""

    scan_seconds: Annotated[float, Meta(ge=0, description="a number of seconds from 0")] = 300.0
    """How often the tracker compares its read model with the registry and with the host's engine; 0: never."""

    # ---- HTTP -------------------------------------------------------------------------------------------------

    api_listen: HostPort = "127.0.0.1:8070"
    """Where the HTTP API listens."""

    api_hosts: HostNames = ""
    """Host names of the API, beside addresses and `localhost`; others, which foreign pages may have, are refused."""

    api_auth: Literal["none", "token", "cyroid"] = "none"
    """Who may use the API: `none` asks nobody, and only on a loopback address; `token` knows the tokens of
    `api_tokens`; `cyroid` asks CYROID whose token a request has."""

    api_tokens: str = ""
    """The file of named tokens for `api_auth=token`, lines of `cyroid-images tokens create`; read when it changes."""

    api_cyroid_url: HttpUrl = "http://127.0.0.1:8000"
    """CYROID's own API, asked at `/api/v1/auth/me` for `api_auth=cyroid`."""

    api_cyroid_roles: RoleMap = "admin=admin,engineer=operator,*=viewer"
    """Which role of ours each role of CYROID's users has; `*` stands for every other user of CYROID."""

    api_frame_ancestors: FrameAncestors = ""
    """Who may show our page in a frame: origins (`https://cyroid.example`), `self`; commas between. Empty: nobody."""

    engine_networks: Networks = ""
    """Where engines of `engine_url` may be: networks such as `172.30.1.0/24`, and no names then. Empty: anywhere."""

    # ---- the process ------------------------------------------------------------------------------------------

    operations_listen: HostPortOrNothing = ""
    """This process' own address for `/livez`, `/readyz` and `/metrics`, which the `api` has anyway. Empty: nowhere."""

    operations_clients: Networks = ""
    """Who is answered there: networks such as `172.30.0.0/24`, separated by commas. Empty: everybody who reaches it."""

    drain_seconds: Annotated[float, Meta(ge=0, description="a number of seconds from 0")] = 20.0
    """How long work under way may go on after SIGTERM before it is released to other workers."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important line that is still written."""

    log_format: Literal["json", "console", "auto"] = "auto"
    """`auto` is console on a terminal and JSON lines elsewhere."""

    def registry_place(self) -> RegistryPlace:
        """Raises BadInput where the settings of the registry contradict one another."""
        name, password, token = self.registry_username, self.registry_password, self.registry_token
        return RegistryPlace.of(self.registry_url, username=name, password=password, token=token)

    def contradictions(self) -> dict[str, str]:
        """Contradictions between settings: by the field to correct, the reason, without a secret in it."""
        why = "it holds a user name, which is not used: a range comes with a token of one use"
        found = {name: why for name in ("tar_url", "upload_url") if "@" in getattr(self, name)}
        try:
            self.registry_place()
        except BadInput as problem:
            found["registry_url"] = str(problem)
        for name in ("engine_networks", "operations_clients"):
            try:
                networks_of(getattr(self, name))
            except ValueError as problem:
                found[name] = str(problem)
        return found

    def __repr__(self) -> str:
        """Without secrets: this may end up in a log."""
        parts = (f"{field.name}={shown(field, getattr(self, field.name))!r}" for field in msgspec.structs.fields(self))
        return f"Settings({', '.join(parts)})"
