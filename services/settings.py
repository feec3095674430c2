"""Every setting there is, one structure, read from `CYROID_*` (`services.environment` does the reading).

A field's variable is `CYROID_` and its name in capitals: `redis_url` is `CYROID_REDIS_URL`. Units are in the names.
The sentence under a field is its documentation; `cyroid-images settings` prints it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from services.core.secrets import SECRET, shown

HostPort = Annotated[
    str, Meta(pattern=r"^[^\s/:@]+:[0-9]{1,5}$|^\[[0-9a-fA-F:]+\]:[0-9]{1,5}$", description="HOST:PORT")
]
RegistryAddress = Annotated[
    str, Meta(pattern=r"^[^\s/@]+$", description="HOST or HOST:PORT, as an image reference begins")
]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$", description="a URL such as http://127.0.0.1:5000")]
EngineUrl = Annotated[
    str,
    Meta(
        pattern=r"^(unix:///\S+|(tcp|https?)://[^\s/]+/?)$",
        description="an engine's address such as unix:///var/run/docker.sock or tcp://10.0.0.2:2375",
    ),
]
RedisUrl = Annotated[
    str,
    Meta(
        pattern=r"^(redis|rediss|unix|redis\+sentinel|redis\+cluster)://\S+$",
        description="a URL such as redis://127.0.0.1:6379/0 or redis+sentinel://host:26379,host:26379/NAME/0",
    ),
    SECRET,
]
Secret = Annotated[str, SECRET]
RangeId = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,127})?$",
        description="letters, digits, dots, dashes and underscores",
    ),
]
Count = Annotated[int, Meta(ge=1, description="a whole number from 1")]
Bytes = Annotated[int, Meta(ge=0, description="a number of bytes from 0")]
Seconds = Annotated[float, Meta(gt=0, description="a number of seconds above 0")]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator can choose. Values are checked before anything starts."""

    # ---- Redis ------------------------------------------------------------------------------------------------

    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    """Where the bus lives: `redis://[user:password@]host:port/db`, `rediss://`, `unix://`; through Sentinel
    `redis+sentinel://[user:password@]host:port,host:port/MASTER/db`; in a cluster `redis+cluster://host:port,host:port`
    (with a key prefix in braces). Holds a password where there is one: also by _FILE."""

    key_prefix: Annotated[str, Meta(pattern=r"^[^\s*?\[\]]{1,64}$", description="text without spaces or globs")] = (
        "cyroid"
    )
    """What every key begins with. `{cyroid}` puts all keys into one slot of a Redis Cluster."""

    lease_seconds: Annotated[float, Meta(ge=3, le=600, description="a number of seconds from 3 to 600")] = 30.0
    """How long a worker may be silent before another one takes over what it was doing."""

    entry_limit_bytes: Annotated[int, Meta(ge=4096, description="a number of bytes from 4096")] = 1024 * 1024
    """The largest entry that is read or written; anything larger is a dead letter."""

    # ---- the host's engine ------------------------------------------------------------------------------------

    host_engine_url: EngineUrl = "unix:///var/run/docker.sock"
    """The engine on which images are built, imported and promoted."""

    engine_root: str = ""
    """Where the host engine's data root is mounted for reading (`/var/lib/docker`), to read layers where they lie.
    Empty: layers come out of `docker save` instead, which is slower."""

    exports_limit: Count = 2
    """How many tar exports the host's engine does at a time."""

    # ---- the registry -----------------------------------------------------------------------------------------

    registry_url: HttpUrl = "http://127.0.0.1:5000"
    """The registry as this side reaches it, for writing."""

    registry_address: RegistryAddress = "127.0.0.1:5000"
    """The registry as ranges reach it: what their engines pull from."""

    registry_storage: str = ""
    """The registry's storage folder where it is mounted; only used to say how much room it takes."""

    registry_username: str = ""
    """Who we are to a registry that asks (HTTP basic). Empty: nobody asks."""

    registry_password: Secret = ""
    """The password to `registry_username`; also by _FILE."""

    registry_token: Secret = ""
    """A bearer token for the registry, instead of name and password; also by _FILE."""

    auto_push: bool = True
    """Whether an image that was built, imported or promoted with `push: auto` goes into the registry by itself."""

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
    """How many images the ranges of this host unpack at a time, over all ranges. On two cores 2 to 6 were alike."""

    large_image_bytes: Bytes = 2 * 1024**3
    """An image from this size on counts as large: large ones leave one of `extractions_limit` to smaller ones."""

    stall_seconds: Seconds = 60.0
    """How long a transfer may stand still, not one byte, before it counts as broken and the next path is tried."""

    agent_grace_seconds: Annotated[float, Meta(ge=0, description="a number of seconds from 0")] = 60.0
    """How long a deployment waits for a range whose agent is not there, before it fails."""

    push_wait_seconds: Seconds = 60.0
    """How long a deployment waits for a push that tells of no progress, before it goes by tar."""

    # ---- tar fallback -----------------------------------------------------------------------------------------

    tar_listen: HostPort = "127.0.0.1:7070"
    """Where the tar server listens."""

    tar_url: HttpUrl = "http://127.0.0.1:7070"
    """The tar server as ranges reach it."""

    spool_folder: str = "/var/tmp/cyroid-spool"
    """Where an export lies while ranges read it; emptied by itself."""

    spool_limit_bytes: Bytes = 64 * 1024**3
    """How much the spool may take; above it a further export waits."""

    # ---- a range's agent --------------------------------------------------------------------------------------

    range_id: RangeId = ""
    """Which range the agent belongs to (role `agent` only)."""

    engine_url: EngineUrl = "unix:///var/run/docker.sock"
    """The range's engine, as its agent reaches it (role `agent` only)."""

    beat_seconds: Seconds = 5.0
    """How often an agent says that it is alive; it counts as gone after three beats missed."""

    # ---- HTTP -------------------------------------------------------------------------------------------------

    api_listen: HostPort = "127.0.0.1:8070"
    """Where the HTTP API listens."""

    # ---- the process ------------------------------------------------------------------------------------------

    drain_seconds: Annotated[float, Meta(ge=0, description="a number of seconds from 0")] = 20.0
    """How long work under way may go on after SIGTERM before it is handed back to the others."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important line that is still written."""

    log_format: Literal["json", "console", "auto"] = "auto"
    """`auto` is console on a terminal and JSON lines elsewhere."""

    def __repr__(self) -> str:
        """Without secrets: this may end up in a log."""
        parts = (f"{field.name}={shown(field, getattr(self, field.name))!r}" for field in msgspec.structs.fields(self))
        return f"Settings({', '.join(parts)})"
