"""Types of settings: the pattern of their values, and its description for a person."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from services.core.secrets import SECRET, URL

_PORT = "([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST_PORT = rf"([^\s/:@]+|\[[0-9a-fA-F:]+\]):{_PORT}"
HostPort = Annotated[str, Meta(pattern=rf"^{_HOST_PORT}$", description="HOST:PORT")]
HostPortOrNothing = Annotated[str, Meta(pattern=rf"^({_HOST_PORT})?$", description="HOST:PORT, or nothing")]
KeyPrefix = Annotated[str, Meta(pattern=r"^[^\s*?\[\]]{1,64}$", description="text without spaces or globs")]
Networks = Annotated[
    str,
    Meta(
        pattern=r"^([0-9a-fA-F.:]+(/[0-9]{1,3})?(\s*,\s*[0-9a-fA-F.:]+(/[0-9]{1,3})?)*)?$",
        description="networks such as 172.30.0.0/24, separated by commas",
    ),
]
HostNames = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9_.-]+(\s*,\s*[A-Za-z0-9_.-]+)*)?$",
        description="host names separated by commas",
    ),
]
FrameAncestors = Annotated[
    str,
    Meta(
        pattern=r"^((self|https?://[A-Za-z0-9.*:\[\]-]+)(\s*,\s*(self|https?://[A-Za-z0-9.*:\[\]-]+))*)?$",
        description="origins (https://HOST) or self, separated by commas",
    ),
]
RoleMap = Annotated[
    str,
    Meta(
        pattern=r"^[^=,\s]+=(viewer|operator|admin)(,[^=,\s]+=(viewer|operator|admin))*$",
        description="THEIRS=OURS separated by commas, OURS one of viewer, operator and admin",
    ),
]
RegistryAddress = Annotated[
    str, Meta(pattern=r"^[^\s/@]+$", description="HOST or HOST:PORT, as an image reference begins")
]
HttpUrl = Annotated[
    str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$", description="a URL such as http://127.0.0.1:5000"), URL
]
HostId = Annotated[
    str,
    Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,127})?$", description="letters, digits, dots and dashes, or nothing"),
]
EngineUrl = Annotated[
    str,
    Meta(
        pattern=r"^(unix:///\S+|(tcp|https?)://[^\s/]+/?)$",
        description="an engine's address such as unix:///var/run/docker.sock or tcp://10.0.0.2:2375",
    ),
    URL,
]
RedisUrl = Annotated[
    str,
    Meta(
        pattern=r"^(rediss?(\+sentinel)?|unix|redis\+cluster|gateway)://\S+$",
        description="a URL such as redis://127.0.0.1:6379/0 or redis+sentinel://host:26379,host:26379/NAME/0",
    ),
    URL,
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
